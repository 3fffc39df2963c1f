"""Makes the course's environment: ``python labkit/install.py .venv``. Standard library only.

Runs before anything is installed, maybe under a Python too old for the course, so the syntax here
is plain. Every gap gets one sentence that names it and the cure, and exit code 2.
"""

import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEEDS_GB = 4
TROUBLES = [  # (what pip prints, what it means)
    (("Temporary failure", "Name or service not known", "Connection refused", "NewConnectionError",
      "Network is unreachable", "Connection timed out", "Read timed out", "ProxyError"),
     "the package index cannot be reached; connect to the network, or set PIP_INDEX_URL to a mirror"),
    (("No space left on device",), "the disk is full; free %d GB and try again" % NEEDS_GB),
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
    if not os.access(parent, os.W_OK):
        stop("cannot write to %s; copy the course to a folder of yours" % parent)
    free = shutil.disk_usage(parent).free / 1e9
    if free < NEEDS_GB:
        stop("only %.1f GB free at %s, the environment needs %d GB; free some space"
             % (free, parent, NEEDS_GB))


def install(folder):
    """Create or bring up to date the environment in ``folder``: one resolve, under the constraints."""
    python = os.path.join(folder, "bin", "python")
    whole = os.path.exists(python) and subprocess.call(
        [python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.check_call([sys.executable, "-m", "venv", folder])
    print("installing the course's packages into %s (1.6 GB, one to five minutes) …" % folder, flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2",
               "--progress-bar", "off", "--constraint", os.path.join(ROOT, "constraints.txt"),
               "--editable", ROOT]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "WARNING" not in line]
        sys.stderr.write("\n".join(lines[-8:]) + "\n")
        for signs, meaning in TROUBLES:
            if any(sign in done.stdout for sign in signs):
                stop("pip could not install the packages: " + meaning)
        stop("pip could not install the packages; its last lines are above")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        stop("usage: python labkit/install.py FOLDER")
    check(sys.argv[1])
    install(sys.argv[1])
