"use strict";
// The page asks for itself again and changes what differs, so that nothing flickers and no position is lost.

const INTERVAL_MS = 2000;
const TIMEOUT_MS = 10000;

function update(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.id !== fresh.id || old.nodeType !== Node.ELEMENT_NODE) {
    old.replaceWith(fresh);
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  const wanted = [...fresh.childNodes];
  wanted.forEach((child, place) => {
    const found = child.id && known.get(child.id);
    if (found && old.childNodes[place] !== found) old.insertBefore(found, old.childNodes[place] ?? null);
    const there = old.childNodes[place];
    if (there) update(there, child);
    else old.append(child);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

async function refresh() {
  const silent = document.getElementById("silent");
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    // Pictures of a parsed page are fetched only once they are put into this one.
    update(document.getElementById("page"), fresh.getElementById("page"));
    silent.hidden = true;
  } catch {
    silent.hidden = false;
    document.title = "no answer – genrecon";
  }
  setTimeout(refresh, document.hidden ? 5 * INTERVAL_MS : INTERVAL_MS);
}

setTimeout(refresh, INTERVAL_MS);
