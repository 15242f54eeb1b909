"""The fork server: a process that has imported everything a scan needs, and forks a new scan process in milliseconds.

Importing takes seconds. multiprocessing's own forkserver does the same, but where that process or its socket in the
file system went away, so did every later worker.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
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
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NoReturn

from pipelines.server.processes import child_environment

FORK_TIMEOUT_S = 120.0  # for a fork, the imports before the first one included
EXIT_CODE_TIMEOUT_S = 2.0
MESSAGE = struct.Struct("<q")  # request: FORK with a descriptor, or a process id; reply: a number, or minus an errno
FORK = 0
SCAN_PROCESS_MODULE = "pipelines.server.scan_process"


class ForkedProcess:
    """Handle of a process that the fork server made.

    Parameters
    ----------
    pid : its id
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = threading.Lock()  # after `close`, the descriptor's number may belong to another file
        self._descriptor: int | None = os.pidfd_open(pid)

    def kill(self) -> None:
        """End it at once; a newer process with the same id is safe."""
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, or ends within so many seconds."""
        descriptor = self._descriptor
        if descriptor is None:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    def close(self) -> None:
        """Release the handle."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class ForkServer:
    """Client of the fork server process, which it starts when needed, and again when that has ended.

    A context manager, which ends the process.

    Parameters
    ----------
    module : its function `work(link)` runs in every fork, with the fork's end of a pipe
    """

    def __init__(self, module: str = SCAN_PROCESS_MODULE) -> None:
        self._module = module
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
        """Start the process, which begins to import. Raises OSError when it cannot be started."""
        with self._lock:
            self._ensure_started()

    def fork(self, link: Connection) -> ForkedProcess:
        """Make a process that runs `work(link)`.

        Raises OSError, also when the fork server ends or does not answer; the next call starts it again.
        """
        kills = self._kills
        with self._lock:
            if self._kills != kills:  # killed while this call waited: it must not start another one
                raise ConnectionError("the fork server was ended")
            return ForkedProcess(self._request(self._ensure_started(), FORK, link.fileno()))

    def exit_code(self, pid: int) -> int | None:
        """Exit code of a process that has ended, minus the signal's number after a signal; None if unknown.

        It takes `EXIT_CODE_TIMEOUT_S` at most for either of its two waits, and never raises.
        """
        if not self._lock.acquire(timeout=EXIT_CODE_TIMEOUT_S):
            return None
        try:
            if self._socket is None:
                return None
            return os.waitstatus_to_exitcode(self._request(self._socket, pid, seconds=EXIT_CODE_TIMEOUT_S))
        except Exception:  # the caller only wants it for a log line
            return None
        finally:
            self._lock.release()

    def kill(self) -> None:
        """End the process, also while other threads wait for its answer."""
        self._kills += 1
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process; its forks go on."""
        with self._lock:
            self._end()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ensure_started(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(  # in a session of its own, which Ctrl-C does not reach
                    [sys.executable, "-m", "pipelines.server.fork_server", str(theirs.fileno()), self._module],
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

    def _request(
        self, sock: socket.socket, number: int, descriptor: int | None = None, seconds: float = FORK_TIMEOUT_S
    ) -> int:
        """Its reply. Without one the process is ended: a late reply would be taken for that to the next request."""
        sock.settimeout(seconds)
        try:
            socket.send_fds(sock, [MESSAGE.pack(number)], [] if descriptor is None else [descriptor])
            received = sock.recv(MESSAGE.size)
        except OSError:
            self._end()
            raise
        if len(received) != MESSAGE.size:
            self._end()
            raise ConnectionError("the fork server ended")
        (reply,) = MESSAGE.unpack(received)
        if reply < 0:
            raise OSError(-reply, os.strerror(-reply))
        return int(reply)

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


# --- in the fork server process --------------------------------------------------------------------------------------


def main(descriptor: int, module: str = SCAN_PROCESS_MODULE) -> None:
    """Answer requests until the socket is closed: fork for each descriptor, else reply with a process's exit status."""
    try:
        work = importlib.import_module(module).work
    except Exception as error:  # without this line nothing would say why there is no server
        from gadgets.stream import one_line  # needed only here, and by forks

        sys.exit(f"error: {module} cannot be imported ({one_line(error)})")
    warnings.simplefilter("ignore")  # their texts may quote patient data of a header
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a scan
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, all pages that it shares with this process
    exit_statuses: dict[int, int] = {}
    with socket.socket(fileno=descriptor) as sock:
        while True:
            message, descriptors, _, _ = socket.recv_fds(sock, MESSAGE.size, 1)
            if not message:
                return
            (number,) = MESSAGE.unpack(message)
            try:
                if descriptors:
                    number = os.fork()
                    if not number:
                        sock.close()
                        _run_fork(work, descriptors[0])
                else:
                    _reap(exit_statuses)
                    number = exit_statuses.pop(number, -errno.ECHILD)
            except OSError as error:
                number = -(error.errno or 1)
            finally:
                for one in descriptors:
                    os.close(one)
            try:
                sock.send(MESSAGE.pack(number))
            except OSError:  # the server has just ended
                return


def _reap(exit_statuses: dict[int, int]) -> None:
    """Collect the exit statuses of all forks that have ended."""
    with contextlib.suppress(ChildProcessError):  # there are no forks
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            exit_statuses[found[0]] = found[1]


def _run_fork(work: Callable[[Connection], object], descriptor: int) -> NoReturn:
    code = 1
    try:
        work(Connection(descriptor))
        code = 0
    except BaseException as error:
        print(f"a scan process ended with {type(error).__name__}", file=sys.stderr)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
