"""Makes the course's environment: ``python labkit/install.py .venv``. Standard library only.

With ``--latest`` the packages are the newest that pyproject.toml allows, not those of constraints.txt.

Runs before anything is installed, maybe under a Python too old for the course, so the syntax here
is plain. Every gap gets one sentence that names it and the cure, and exit code 2.
"""

import contextlib
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONSTRAINTS = os.path.join(ROOT, "constraints.txt")
NEEDS_GB = 4
NEEDS_GB_CUDA = 9  # on Linux x86-64 PyTorch 2.13 brings 2.7 GB of packages, which take 4.8 GB installed
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # 0.2 GB, which take 0.8 GB
PATIENCE_SECONDS = 4
WHEEL = "homeassistant-2026.2.3-py3-none-any.whl"
WHEEL_SHA256 = "8167820cac4b8defe895fd2c36ac23402a445d1fe6028e8cde24caabb935282c"
"""Home Assistant's wheel: its translations are a corpus. Read as a zip file, never installed."""
TROUBLES = [  # (what pip prints, what it means)
    (("Temporary failure", "Name or service not known", "Connection refused", "NewConnectionError",
      "Network is unreachable", "Connection timed out", "Read timed out", "ProxyError"),
     "the package index cannot be reached; connect to the network, or set PIP_INDEX_URL to a mirror"),
    (("No space left on device",),
     "the disk is full; free %d GB (%d GB for PyTorch with CUDA) and try again" % (NEEDS_GB, NEEDS_GB_CUDA)),
    (("No matching distribution found", "ResolutionImpossible"),
     "a pinned package is not to be had for this machine; see the line above, and constraints.txt"),
]


def stop(message):
    """End with one sentence on stderr."""
    sys.stderr.write("labkit: " + message + "\n")
    sys.exit(2)


def check(folder):
    """Stop unless this Python, this disk and this folder will do."""
    version = "%d.%d" % sys.version_info[:2]
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        stop("this is Python %s, the course needs 3.11 to 3.13; install one and run "
             "`make book PYTHON=python3.11`" % version)
    try:
        import ensurepip  # noqa: F401 - only whether it is there
        import venv  # noqa: F401
    except ImportError:
        stop("this Python has no venv module; install it (Debian: apt install python%s-venv)" % version)
    parent = os.path.dirname(os.path.abspath(folder))
    with contextlib.suppress(OSError):
        os.makedirs(parent, exist_ok=True)
    if not os.access(parent, os.W_OK):
        stop("cannot write to %s; copy the course to a folder of yours" % parent)
    free = shutil.disk_usage(parent).free / 1e9
    if free < NEEDS_GB:
        stop("only %.1f GB free at %s, the environment needs %d GB; free some space"
             % (free, parent, NEEDS_GB))


def has_gpu():
    """Whether this machine shows an NVIDIA GPU: a driver, a device, or the tool that comes with them."""
    signs = ("/proc/driver/nvidia", "/dev/nvidia0")
    return shutil.which("nvidia-smi") is not None or any(map(os.path.exists, signs))


def answers(index):
    """Whether a package index answers soon. One that does not would hold pip up for 45 s a package."""
    try:
        trusted = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
        page = index.rstrip("/") + "/torch/"
        urllib.request.urlopen(page, timeout=PATIENCE_SECONDS, context=trusted).close()
        return True
    except Exception:  # no network, no such name, a proxy's refusal, a certificate: pip could not use it
        return False


def output(*command):
    """What a command prints; empty if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def choose_torch(python):
    """(package index to add for PyTorch, or None; one sentence that says which build comes, and why)."""
    wish = os.environ.get("TORCH", "")
    if wish not in ("", "cpu", "cuda") and "://" not in wish:
        stop("TORCH=%s: give cpu, cuda, or the address of a package index" % wish)
    installed = output(python, "-c", "import importlib.metadata as m; print(m.version('torch'))")
    with open(CONSTRAINTS) as pins:
        if "torch==%s\n" % installed.split("+")[0] in pins.readlines():
            return None, "PyTorch %s is there already; `make clean` first, to take another build" % installed
    if wish == "cuda":
        return None, "PyTorch as pip's index has it, on Linux with CUDA, because TORCH=cuda"
    if wish:
        index = CPU_INDEX if wish == "cpu" else wish
        if not answers(index):
            stop("TORCH=%s asks for PyTorch from %s, which does not answer; mend that, or leave TORCH out"
                 % (wish, index))
        return index, "PyTorch from %s, because TORCH=%s" % (index, wish)
    if not sys.platform.startswith("linux"):
        return None, "PyTorch as pip's index has it: on this system it comes without CUDA"
    if has_gpu():
        return None, "PyTorch with CUDA, because there is an NVIDIA GPU (`make book TORCH=cpu` goes without)"
    if "index-url" in output(python, "-m", "pip", "config", "list"):
        return None, ("PyTorch from the package index that pip is set to; should that bring CUDA, "
                      "`make book TORCH=cpu` goes without")
    if answers(CPU_INDEX):
        return CPU_INDEX, ("PyTorch without CUDA, because there is no NVIDIA GPU "
                           "(`make book TORCH=cuda` takes CUDA all the same)")
    return None, ("PyTorch as pip's index has it, maybe with 2.7 GB of CUDA to download: there is no "
                  "NVIDIA GPU, but %s does not answer" % CPU_INDEX)


def versions(lines):
    """{package: version} of lines such as ``torch==2.13.0+cpu``; names in one spelling, without the build."""
    pairs = [line.strip().partition("==") for line in lines if "==" in line]
    return {name.lower().replace("_", "-").replace(".", "-"): version.partition("+")[0]
            for name, _, version in pairs}


def moved(python):
    """A line for each package that is installed in another version than constraints.txt has."""
    with open(CONSTRAINTS) as file:
        pinned = versions(file)
    installed = versions(output(python, "-m", "pip", "list", "--format", "freeze").splitlines())
    return ["%-28s pinned %-14s here %s" % (name, pinned[name], version)
            for name, version in sorted(installed.items()) if version != pinned.get(name, version)]


def install(folder, latest=False):
    """Create or bring up to date the environment in ``folder``: one resolve, under the constraints.

    ``latest``: make it anew without the constraints, and say what is newer than they are.
    """
    python = os.path.join(folder, "bin", "python")
    whole = not latest and os.path.exists(python) and subprocess.call(
        [python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.check_call([sys.executable, "-m", "venv", folder])
    index, why = choose_torch(python)
    print(why, flush=True)
    print("installing the course's packages into %s (2 GB, with CUDA 6 GB; some minutes) …" % folder,
          flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2",
               "--progress-bar", "off", "--editable", ROOT]
    command += [] if latest else ["--constraint", CONSTRAINTS]
    command += ["--extra-index-url", index] if index else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "WARNING" not in line]
        sys.stderr.write("\n".join(lines[-8:]) + "\n")
        for signs, meaning in TROUBLES:
            if any(sign in done.stdout for sign in signs):
                stop("pip could not install the packages: " + meaning)
        stop("pip could not install the packages; its last lines are above")
    if latest:
        changes = moved(python)
        changes.append("%d packages differ from constraints.txt" % len(changes))
        print("\n".join(changes), flush=True)


def cache_folder(prefix):
    """Where downloads for the environment in ``prefix`` are kept: there, unless LABKIT_CACHE is set."""
    return os.environ.get("LABKIT_CACHE") or os.path.join(prefix, "labkit_cache")


def wheel_command(pip, folder):
    """The command that downloads the wheel alone. To run, though not to be read, it needs Python 3.14."""
    package, version = WHEEL.split("-")[:2]
    return [*pip.split(), "download", "--no-deps", "--python-version", "3.14", "--only-binary=:all:",
            "-d", folder, "%s==%s" % (package, version)]


def sha256(path):
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def fetch(folder):
    """Download the wheel of the corpus home-assistant, once; without it all else works, so never stop."""
    path = os.path.join(cache_folder(folder), WHEEL)
    if os.path.exists(path) and sha256(path) == WHEEL_SHA256:
        return
    python = os.path.join(folder, "bin", "python")
    with contextlib.suppress(OSError):
        os.remove(path)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    quiet = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--progress-bar", "off"]
    command = wheel_command("pip", os.path.dirname(path))
    subprocess.call([python, "-m", *command, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not os.path.exists(path):
        print("note: %s (51 MB) was not to be had, so the corpus home-assistant is missing and all else "
              "works; later, `%s` fetches it" % (WHEEL, " ".join(command)), flush=True)
    elif sha256(path) != WHEEL_SHA256:
        os.remove(path)
        print("note: the %s of the package index is not the one that the course pins, so the corpus "
              "home-assistant is missing and all else works" % WHEEL, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[2:] not in ([], ["--latest"]):
        stop("usage: python labkit/install.py FOLDER [--latest]")
    check(sys.argv[1])
    install(sys.argv[1], latest=len(sys.argv) == 3)
    fetch(sys.argv[1])
