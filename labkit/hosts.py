"""Several hosts: the hostfile as DeepSpeed reads it, and a meeting of those that are started by hand.

Each host's labkit comes to host 0's before any rank starts, so that host 0 can say who is missing and
the others why they cannot come. The ranks meet after that, at the same address and port.
"""

import json
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from labkit.env import UserError
from labkit.progress import Progress

LOOK_AT = ("is it the same command with the same --master-addr and --master-port on every host, each with "
           "its own --node-rank; can the others reach that address and port (firewall); and where hosts have "
           "several network interfaces, do GLOO_SOCKET_IFNAME and, on GPUs, NCCL_SOCKET_IFNAME name the one "
           "between them?")


def read_hostfile(path: str | Path, say: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Hosts and their slots, from lines ``host slots=N`` as DeepSpeed reads them.

    DeepSpeed drops whatever follows the number; ``say`` gets a sentence about it. Raises UserError with
    the line that DeepSpeed would refuse, or that gives a host no rank.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the hostfile {path}: {getattr(error, 'strerror', error)}") from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.match(r"(\S+)\s+slots=(\d+)", line)
        if not match:
            raise UserError(f"{path}, line {number}: {line!r} is not of the form `host slots=2`")
        if match[1] in hosts:
            raise UserError(f"{path}, line {number}: host {match[1]} is named twice")
        hosts[match[1]] = int(match[2])
        if not hosts[match[1]]:
            raise UserError(f"{path}, line {number}: {match[1]} has no slots: give it 1 or more")
        rest = line[match.end():].strip()
        if rest and not rest.startswith("#"):
            say(f"{path}, line {number}: DeepSpeed reads slots={match[2]} and ignores {rest!r}")
    if not hosts:
        raise UserError(f"{path} names no host: write lines such as `node1 slots=2`")
    return hosts


def meet(hosts: list[str], node_rank: int, address: str, port: int, *, seconds: float,
         about: str = "") -> None:
    """Return when every host's labkit has come to host 0's, at ``address`` and ``port``.

    ``about`` says what is to be run; host 0 refuses a host that would run something else. Raises UserError
    after ``seconds``, with who or what was missing.
    """
    with Progress(f"waiting for {len(hosts)} hosts") as bar:
        if node_rank == 0:
            _receive(hosts, address, port, seconds, about, bar)
        else:
            _come(hosts, node_rank, address, port, seconds, about, bar)


def _receive(hosts: list[str], address: str, port: int, seconds: float, about: str, bar: Progress) -> None:
    """Host 0: wait for the others, then let all go at once."""
    began, here = time.monotonic(), {}
    with ExitStack() as closing:
        try:
            where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise UserError(f"--master-addr {address} means nothing to this host ({error.strerror}): give an "
                            "address of host 0 that all hosts can reach") from None
        # Not only on that address: where it is a router's, connections arrive at another.
        listener = closing.enter_context(socket.socket(where[0], socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(f"host 0 cannot listen at port {port} ({error.strerror}): give every host "
                            "another --master-port") from None
        listener.listen()
        try:
            socket.create_connection((address, port), timeout=5.0).close()
        except OSError as error:
            raise UserError(f"host 0 cannot reach itself at {address} port {port} "
                            f"({error.strerror or error}): give --master-addr an address of host 0, on every "
                            "host") from None
        while len(here) < len(hosts) - 1:
            missing = [f"{hosts[i]} (--node-rank {i})" for i in range(1, len(hosts)) if i not in here]
            waited = time.monotonic() - began
            missing = ", ".join(missing)
            bar.note(f"{len(here) + 1} of {len(hosts)} are here; missing {missing}; {waited:.0f} s")
            if waited > seconds:
                raise UserError(f"after {seconds:g} s {missing} had not come to {address} port {port}: "
                                f"{LOOK_AT}")
            ready, _, _ = select.select([listener, *here.values()], [], [], 0.5)
            for one in ready:
                if one is listener:
                    _greet(closing.enter_context(listener.accept()[0]), hosts, here, about)
                else:  # a host that waits says nothing: it has gone
                    here = {rank: other for rank, other in here.items() if other is not one}
        for one in here.values():
            with suppress(OSError):
                one.sendall(b'{"go": true}\n')


def _greet(guest: socket.socket, hosts: list[str], here: dict[int, socket.socket], about: str) -> None:
    """Take a host in, or tell it why not."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        guest.settimeout(2.0)
        said = json.loads(guest.makefile().readline())
        rank, why = said["node_rank"], ""
        if rank in here or rank == 0 or not 0 < rank < len(hosts):
            why = f"--node-rank {rank} is taken: give each host its own number, 0 to {len(hosts) - 1}"
        elif said["about"] != about:
            why = f"host 0 runs {about}, this host {said['about']}: start the same on every host"
        if why:
            guest.sendall(json.dumps({"refused": why}).encode() + b"\n")
        else:
            here[rank] = guest


def _come(hosts: list[str], node_rank: int, address: str, port: int, seconds: float, about: str,
          bar: Progress) -> None:
    """Another host: come to host 0, as often as it takes, and wait until it lets all go."""
    began, why = time.monotonic(), ""
    hello = json.dumps({"node_rank": node_rank, "about": about}).encode() + b"\n"
    while (waited := time.monotonic() - began) < seconds:
        try:
            with socket.create_connection((address, port), timeout=3.0) as host0:
                host0.sendall(hello)
                host0.settimeout(0.5)
                why, answer = "it let this host in, and waits for others", b""
                while not answer.endswith(b"\n") and (waited := time.monotonic() - began) < seconds:
                    bar.note(f"host 0 is there, and waits for others; {waited:.0f} s")
                    with suppress(TimeoutError):
                        more = host0.recv(4096)
                        if not more:
                            raise OSError("it ended the connection")
                        answer += more
                said = json.loads(answer) if answer else {}
                if said.get("go"):
                    return
                if "refused" in said:
                    raise UserError(said["refused"])
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            why = "what answers there is no labkit"
        except OSError as error:
            why = error.strerror or str(error)
        bar.note(f"for {hosts[0]} at {address} port {port}: {why}; {waited:.0f} s")
        time.sleep(1.0)
    raise UserError(f"after {seconds:g} s this host had not met host 0 ({hosts[0]}) at {address} port {port} "
                    f"({why}): {LOOK_AT}")
