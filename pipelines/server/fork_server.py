"""A process that has loaded what the reconstruction of scans needs, and makes processes for scans from itself.

Loading takes seconds, a fork milliseconds. multiprocessing's forkserver does the same, but a place for scans was lost
where that process or its socket in the file system went away.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from typing import NoReturn

from gadgets.stream import one_line
from pipelines.server.processes import child_environment

ANSWER_S = 120.0  # that it may take to make a process, loading included
TELL_S = 2.0  # that it may take to tell how one ended
NUMBER = struct.Struct("<q")
MAKE = 0  # beside a descriptor; any other number asks how the process of that id ended


class ScanProcess:
    """A process that was made by the nursery.

    Parameters
    ----------
    pid : its id
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = threading.Lock()  # of the descriptor, which another file may have after `close`
        self._descriptor: int | None = os.pidfd_open(pid)

    def kill(self) -> None:
        """End it at once. Another process that has its id by now is safe."""
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, or does so soon enough."""
        descriptor = self._descriptor
        if descriptor is None:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    def close(self) -> None:
        """Forget it."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class Nursery:
    """The process, started when it is needed, and again when it is gone. As a context manager it ends with that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._kills = 0

    @property
    def pid(self) -> int | None:
        """Id of the process; None when it was not started, or was ended."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Begin to load. Raises OSError when the process cannot be started."""
        with self._lock:
            self._started()

    def make(self, link: Connection) -> ScanProcess:
        """A process that runs `pipelines.server.scan_process.work` with its end of a pipe.

        Raises OSError, also when the nursery ends or does not answer; it is started anew the next time.
        """
        kills = self._kills
        with self._lock:
            if self._kills != kills:  # while it waited: it must not start another one
                raise ConnectionError("the process that makes others was ended")
            return ScanProcess(self._ask(self._started(), MAKE, link.fileno()))

    def exit_code(self, pid: int) -> int | None:
        """How a process that has ended did: its exit code, the signal's number less than 0.

        None if nobody knows, or nobody tells within seconds.
        """
        if not self._lock.acquire(timeout=TELL_S):
            return None
        try:
            if self._socket is None:
                return None
            return os.waitstatus_to_exitcode(self._ask(self._socket, pid, seconds=TELL_S))
        except Exception:  # whoever asks has more important things to do
            return None
        finally:
            self._lock.release()

    def kill(self) -> None:
        """End it, whoever waits for its answer."""
        self._kills += 1
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End it; the processes that it made go on."""
        with self._lock:
            self._end()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(  # in a session of its own Ctrl-C does not reach it
                    [sys.executable, "-m", "pipelines.server.fork_server", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env=child_environment(),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        return ours

    def _ask(self, sock: socket.socket, number: int, descriptor: int | None = None, seconds: float = ANSWER_S) -> int:
        """Its answer. Where there is none it is ended: a late one would be taken for that to the next question."""
        sock.settimeout(seconds)
        try:
            socket.send_fds(sock, [NUMBER.pack(number)], [] if descriptor is None else [descriptor])
            found = sock.recv(NUMBER.size)
        except OSError:
            self._end()
            raise
        if len(found) != NUMBER.size:
            self._end()
            raise ConnectionError("the process that makes others ended")
        (answer,) = NUMBER.unpack(found)
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return int(answer)

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def main(descriptor: int) -> None:
    """The process: fork for every descriptor that comes, and say how the processes of other numbers ended."""
    try:
        from pipelines.server.scan_process import work
    except Exception as error:  # the one line that tells why there is no server
        sys.exit(f"error: what reconstructs scans cannot be loaded ({one_line(error)})")
    warnings.simplefilter("ignore")  # they may quote headers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold a scan
    gc.collect()
    gc.freeze()  # a collection in a fork would write into all that was loaded, and so copy it
    ended: dict[int, int] = {}
    with socket.socket(fileno=descriptor) as sock:
        while True:
            message, descriptors, _, _ = socket.recv_fds(sock, NUMBER.size, 1)
            if not message:
                return
            (number,) = NUMBER.unpack(message)
            try:
                if descriptors:
                    number = os.fork()
                    if not number:
                        sock.close()
                        _run(work, descriptors[0])
                else:
                    _reap(ended)
                    number = ended.pop(number, -errno.ECHILD)
            except OSError as error:
                number = -(error.errno or 1)
            finally:
                for one in descriptors:
                    os.close(one)
            try:
                sock.send(NUMBER.pack(number))
            except OSError:  # the server has just ended
                return


def _reap(ended: dict[int, int]) -> None:
    """Note how all processes that have ended did."""
    with contextlib.suppress(ChildProcessError):  # there is none
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]


def _run(work: object, descriptor: int) -> NoReturn:
    code = 1
    try:
        work(Connection(descriptor))  # type: ignore[operator]
        code = 0
    except BaseException as error:
        print(f"a process for scans ended with {type(error).__name__}", file=sys.stderr)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
