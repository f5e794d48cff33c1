"""Starts a process for each line of standard input, in the way that its argument
names, and answers with an error number: the victim's protocol."""
import multiprocessing
import os
import subprocess
import sys


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def workers():
    p = multiprocessing.get_context("fork").Process(target=int)
    p.start()
    p.join()


ways = {
    "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
    "preexec_fn": lambda: subprocess.run(["/bin/true"], check=True, preexec_fn=int),
    "os.system": lambda: os.system("/bin/true") == 0 or sys.exit("os.system"),
    "os.fork": fork,
    "multiprocessing": workers,
}
print("ready", flush=True)
for _ in sys.stdin:
    errno = 0
    try:
        ways[sys.argv[1]]()
    except OSError as e:
        errno = e.errno
    print(errno, flush=True)
