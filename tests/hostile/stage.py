"""Code that misbehaves inside the sandboxes, one case per run, with only the standard library: `python3 stage.py CASE`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

OUT = "/bench/out"
ARTIFACTS = OUT + "/artifacts"
HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = "<script>alert(1)</script>\x1b[31mred\x1b[0m"


def tell(**event):
    with open(OUT + "/events.jsonl", "a") as file:
        file.write(json.dumps(event) + "\n")


def left(name, suffix=".safetensors"):
    return os.path.join(HERE, name + suffix)


def step(number):
    tell(event="step", step=number, loss=1.0, learning_rate=0.1, gradient_norm=1.0, seconds=0.1, data_seconds=0.0)


def finish(steps=1, backbone="good", notes=None):
    """Leave the output of an honest stage."""
    os.makedirs(ARTIFACTS, exist_ok=True)
    tell(event="start", total_steps=steps)
    for number in range(1, steps + 1):
        step(number)
    if backbone:
        shutil.copy(left(backbone), ARTIFACTS + "/backbone.safetensors")
    tell(event="usage", ledger={"optimizer_steps": steps})
    tell(event="end", status="ok", notes=notes or {})


def honest():
    finish()


def network():
    for address in (("1.1.1.1", 53), ("172.17.0.1", 22)):
        try:
            socket.create_connection(address, timeout=2)
            print("reached", address)
        except OSError as error:
            print("not reached:", error)
    print("interfaces:", sorted(name for _, name in socket.if_nameindex()))
    finish()


def writes_outside():
    for place in ("/x", "/etc/x", "/bench/x", "/bench/in/x", "/bench/in/stage.json", "/bench/data/x", "/opt/x"):
        try:
            open(place, "a").close()
            print("wrote", place)
        except OSError as error:
            print("refused:", error)
    with open("/proc/self/status") as status:
        print("user", os.getuid(), "capabilities", [line for line in status if line.startswith("CapEff")])
    finish()


def everywhere(name):
    """Files of this name in all places where a user's files may be."""
    for folder, folders, names in os.walk("/"):
        passed_by = (
            ("usr", "lib", "lib64", "bin", "sbin", "proc", "sys", "dev") if folder == "/" else ("site-packages",)
        )
        folders[:] = [f for f in folders if f not in passed_by]
        yield from (os.path.join(folder, n) for n in names if n == name)


def reads_another_run():
    print(
        "found",
        list(everywhere("secret.txt")),
        "bench",
        sorted(os.listdir("/bench")),
        "socket",
        os.path.exists("/var/run/docker.sock"),
    )
    finish()


def looks_for_labels():
    views = [p for p, _, _ in os.walk("/bench/data") if "labelled" in p.split("/")]
    print("labels", [*views, *everywhere("semantic.npy")])
    finish()


def forks():
    children = 0
    try:
        while children < 100000:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            children += 1
    except OSError as error:
        print("forks", children, error)
    finish()


def memory():
    finish()
    subprocess.run([sys.executable, "-c", "x = bytearray(900 << 20); print(len(x))"])


def memory_itself():
    print(len(bytearray(900 << 20)))


def disk():
    with open(OUT + "/big", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
            time.sleep(0.005)


def system_calls():
    """Uses call numbers of x86-64 or, where they differ, arm64; the arguments are invalid, so that a permitted call fails
    with another error."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    here = 0 if os.uname().machine == "x86_64" else 1
    numbers = {
        "io_uring_setup": (425, 425), "keyctl": (250, 219), "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97),
        "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217), "setns": (308, 268),
        "process_vm_readv": (310, 270), "open_by_handle_at": (304, 265), "clone3": (435, 435),
    }  # fmt: skip
    for name, number in numbers.items():
        library.syscall(number[here], 999_999, 0, 0, 0, 0, 0)
        print("call", name, ctypes.get_errno())
    finish()


def processors():
    try:
        os.sched_setaffinity(0, range(os.cpu_count()))
    except OSError as error:
        print(error)
    print("processors", sorted(os.sched_getaffinity(0)))
    finish()


def disk_at_once():
    size = 0
    with open(OUT + "/big", "wb") as file:
        try:
            while size < 4096:
                os.posix_fallocate(file.fileno(), size << 20, 1 << 20)
                size += 1
        except OSError as error:
            print(error)
    print("wrote", size, "MiB")
    finish()


def ignores_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(event="start", total_steps=1)
    time.sleep(120)


def much_log():
    line = "x" * 1023 + "\n"
    for _ in range(100 * 1024):
        sys.stdout.write(line)
    finish()


def floods_events():
    with open(OUT + "/events.jsonl", "a") as file:
        for _ in range(100000):
            file.write('{"event": "warning", "message": "again"}\n')
    finish()


def long_and_nested_lines():
    with open(OUT + "/events.jsonl", "a") as file:
        file.write('{"event": "warning", "message": "' + "y" * (10 << 20) + '"}\n')
        file.write("[" * 200000 + "]" * 200000 + "\n")
        file.write('{"event": "step", "step": NaN, "loss": NaN}\n\x00\xff\n')
    finish()


def nan_checkpoint():
    finish(backbone="nan")


def truncated_checkpoint():
    finish()
    with open(ARTIFACTS + "/backbone.safetensors", "r+b") as file:
        file.truncate(5000)


def wrong_shape():
    finish(backbone="shape")


def pickled_checkpoint():
    finish(backbone="pickle")


def pickled_array():
    finish()
    shutil.copy(left("pickle"), ARTIFACTS + "/features.npy")


def bomb():
    finish()
    shutil.copy(left("bomb", ".zip"), ARTIFACTS + "/predictions.npz")


def symlink():
    finish()
    os.symlink("/etc/passwd", ARTIFACTS + "/more.json")


def symlinked_artifacts():
    finish()
    shutil.rmtree(ARTIFACTS)
    os.symlink("/etc", ARTIFACTS)


def hard_link():
    finish()
    os.link(ARTIFACTS + "/backbone.safetensors", ARTIFACTS + "/again.safetensors")


def pipe():
    finish()
    os.mkfifo(ARTIFACTS + "/more.json")


def device():
    finish()
    try:
        os.mknod(ARTIFACTS + "/more.json", 0o600 | 0o020000, os.makedev(1, 3))
    except OSError as error:
        print("refused:", error)


def events_are_a_link():
    finish()
    os.remove(OUT + "/events.jsonl")
    os.symlink("/etc/passwd", OUT + "/events.jsonl")


def events_are_a_pipe():
    os.mkfifo(OUT + "/events.jsonl")
    time.sleep(1)


def events_are_a_folder():
    os.mkdir(OUT + "/events.jsonl")


def deep_folders():
    finish()
    os.chdir(ARTIFACTS)
    for _ in range(1200):
        os.mkdir("a")
        os.chdir("a")


def refuses_late():
    tell(event="start", total_steps=1)
    tell(event="end", status="refused", message="I do not like this")
    sys.exit(2)


def cancels_itself():
    tell(event="start", total_steps=1)
    tell(event="end", status="cancelled", message="unasked")
    sys.exit(130)


def claims_a_full_disk():
    tell(event="end", status="failed", message="OSError: No space left on device")
    sys.exit(1)


def sparse_file():
    finish()
    with open(ARTIFACTS + "/more.json", "w") as file:
        file.truncate(1 << 40)


def many_words():
    for number in range(3000):
        tell(event="warning", message=f"{number} " + "z" * 4000)
    finish(notes={f"{SCRIPT} {n}": "n" * 100000 for n in range(8)})


def nested_pickle():
    finish()
    os.mkdir(ARTIFACTS + "/sub")
    shutil.copy(left("pickle"), ARTIFACTS + "/sub/more.safetensors")


def strange_names():
    finish()
    with open(ARTIFACTS + "/" + SCRIPT.replace("/", "_") + "\n..json", "w") as file:
        file.write("{}")


def escapes_and_markup():
    print(SCRIPT)
    tell(event="end", status="failed", message=SCRIPT)
    sys.exit(1)


def forged_end():
    finish()
    sys.exit(3)


def fewer_steps():
    tell(event="start", total_steps=8)
    for number in range(1, 8):
        step(number)
    os.makedirs(ARTIFACTS, exist_ok=True)
    shutil.copy(left("good"), ARTIFACTS + "/backbone.safetensors")
    tell(event="usage", ledger={"optimizer_steps": 1})
    tell(event="end", status="ok")


def more_steps():
    finish(steps=5000)


def nothing():
    pass


def exits_137():
    tell(event="start", total_steps=1)
    os._exit(137)


def hangs():
    time.sleep(120)


def zombie():
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
    finish()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
