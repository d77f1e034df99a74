"""Bad input gives a one-line message with advice, the right exit code, and no partial result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.api.settings import resolve
from pretrain_bench.api.sizing import check_fit, pretrain_stand_ins, task_stand_ins
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.planning.resolved_suite import RunOverrides
from tests.conftest import NANO, REPOSITORY, Bench, bench_command, run_records
from tests.faults.in_process import SleepingInProcess, cells_of, run_with


def arguments(*more: str) -> list[str]:
    return ["run", "--method", "scratch", "--task", "s3dis-sem", *NANO, "--threads", "1", *more]


def one_line(stderr: str) -> str:
    """The only error line of an output."""
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and stderr.splitlines()[-1] == errors[0], stderr
    return errors[0]


def nothing_written(folder: Path) -> None:
    assert not list(folder.glob("runs/*/*")) and not list(folder.glob("runs/.partial/[!.]*"))


@pytest.fixture
def rooms(s3dis_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(s3dis_root, tmp_path / "s3dis"))


@pytest.fixture
def frames(rgbd_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rgbd_root, tmp_path / "rgbd"))


@pytest.fixture(scope="module")
def finished(s3dis_root: Path, module_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `arguments` would leave, from sleeping stages instead of training; tests copy it."""
    runs = tmp_path_factory.mktemp("finished") / "runs"
    suite = Suite(name="alone", version=1, budget=NANO[1], profile=NANO[3], methods=("scratch",), tasks=("s3dis-sem",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_TEST_SLEEP", "0.1")
        run_with(SleepingInProcess(), cells_of(suite, RunOverrides([f"s3dis={s3dis_root}"], threads=1)), runs)
    return runs


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))


WALL = "Area_1/office_1/Annotations/wall_1.txt"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--method", "our"],
            "unknown method 'our'. Did you mean 'ours'? There are: csc, depthcontrast, imported, msc, ours, pointcontrast, scratch, supervised",
        ),
        (["--task", "s3dis"], "unknown task 's3dis'. Did you mean 's3dis-sem'?"),
        (["--budget", "smok"], "unknown budget 'smok'. Did you mean 'smoke'?"),
        (["--profile", "./nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--data", "s3dis=/nowhere/at/all"], "s3dis: data root /nowhere/at/all is not a folder"),
        (["--data", "s3dis"], "--data 's3dis': expected NAME=DIR"),
        (["--data", "s4dis=/tmp"], "--data 's4dis=/tmp': unknown dataset 's4dis'"),
        (
            ["--data", "s3dis=/a", "--data", "s3dis=/b"],
            "--data s3dis=/a and --data s3dis=/b: a dataset has one root, for tasks and pre-training alike; leave one of them out",
        ),
        (
            ["--data", "scannet=/a", "--pretrain-data", "scannet=/b"],
            "--data scannet=/a and --pretrain-data scannet=/b: a dataset has one root",
        ),
        (["--pretrain-data", "rgbd-folder=/nowhere"], "rgbd-folder: data root /nowhere is not a folder"),
        (["--imagenet-weights", "/nowhere.pth"], "--imagenet-weights /nowhere.pth: no such file"),
        (["--label-ratio", "1.0"], "label ratio '1.0': expected per cent"),
        (["--pretrain-seed", "one"], "--pretrain-seed 'one': expected whole numbers"),
        (["--seeds", "2", "--pretrain-seed", "1"], "--seeds and --pretrain-seed: both set the pre-training seeds"),
        (
            ["--method", "ours", "--pretrain-data", f"s3dis={REPOSITORY / 'tests/specs'}"],
            "method 'ours' needs frames, images, which dataset 's3dis'",
        ),
    ],
)
def test_wrong_use(more: list[str], said: str, bench: Bench, tmp_path: Path, s3dis_root: Path) -> None:
    rooted = "--data" in more or any(word.startswith("s3dis=") for word in more)
    data = [] if rooted else ["--data", f"s3dis={s3dis_root}"]
    done = bench(*arguments(*data, *more), code=2)
    assert said in one_line(done.stderr)
    nothing_written(tmp_path)


def test_a_negative_budget(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("extends: smoke\nname: b\npretrain: {steps: -1, optimizer_steps: -1}\n")
    error = one_line(bench(*arguments("--budget", "./b.yaml"), code=2).stderr)
    assert "b.yaml: pretrain.optimizer_steps: Input should be greater than 0 (got -1)" in error
    assert "pretrain.steps: unknown key" in error


def test_a_truncated_text_file(rooms: Path, bench: Bench, tmp_path: Path) -> None:
    path = rooms / WALL
    path.write_bytes(path.read_bytes()[:-8])
    error = one_line(bench(*arguments("--data", f"s3dis={rooms}", "--strict"), code=2).stderr)
    assert f"{path}, line 900: the file ends within a line, so it is truncated; copy it again" in error
    nothing_written(tmp_path)


def test_an_unreadable_scene_is_left_out_and_reported(rooms: Path, bench: Bench, tmp_path: Path) -> None:
    path = rooms / WALL
    path.write_bytes(path.read_bytes()[:-8])
    done = bench("data", "prepare", "s3dis", "--root", str(rooms))
    assert f"warning: scene Area_1__office_1 is left out: {WALL}, line 900: the file ends within a line" in done.stderr
    assert "6 scenes" in done.stdout


def test_a_line_with_letters(rooms: Path, bench: Bench, tmp_path: Path) -> None:
    """A bad line drops one point and is reported in one line; with --strict it is an error."""
    path = rooms / WALL
    path.write_text(path.read_text() + "1 2 three 4 5 6\n")
    error = one_line(bench(*arguments("--data", f"s3dis={rooms}", "--strict"), code=2).stderr)
    assert f"{path}, line 901: '1 2 three 4 5 6' is not six numbers, x y z r g b" in error
    nothing_written(tmp_path)
    done = bench("data", "prepare", "s3dis", "--root", str(rooms))
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert (
        warning
        == "warning: Area_1/office_1/Annotations/wall_1.txt, line 901: '1 2 three 4 5 6' is not six numbers, x y z r g b; the point is left out"
    )


def test_a_depth_image_of_the_wrong_size(frames: Path, s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    from PIL import Image

    path = frames / "room0001_00/depth/1.png"
    Image.new("I;16", (60, 45)).save(path)
    data = ["--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={frames}"]
    error = one_line(bench(*arguments("--method", "ours", *data, "--strict"), code=2).stderr)
    assert f"{path}: the picture is 60x45, expected 120x90" in error
    nothing_written(tmp_path)


def test_a_pose_of_minus_infinity(frames: Path, s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    """A frame with lost tracking is dropped and reported in one line; with --strict it is an error."""
    path = frames / "room0001_00/pose/1.txt"
    path.write_text("-inf -inf -inf -inf\n" * 4)
    data = ["--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={frames}"]
    error = one_line(bench(*arguments("--method", "ours", *data, "--strict"), code=2).stderr)
    assert f"{path}: the pose is not finite (tracking was lost)" in error
    nothing_written(tmp_path)
    done = bench("data", "prepare", "rgbd-folder", "--root", str(frames))
    assert (
        "warning: room0001_00/pose/1.txt: the pose is not finite (tracking was lost); the frame is left out"
        in done.stderr
    )
    assert "2 scenes, 0 points, 5 frames, 1 problems" in done.stdout


def test_a_parent_checkpoint_of_another_shape(runs: Path, s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    """After a finished backbone is replaced, the fine-tuning fails with a record that names the tensor."""
    from safetensors.numpy import load_file, save_file

    data = ["--data", f"s3dis={s3dis_root}"]
    shutil.rmtree(tmp_path / "runs/finetune")
    (backbone,) = (tmp_path / "runs/pretrain").glob("*/artifacts/backbone.safetensors")
    tensors = load_file(backbone)
    tensors["conv0p1s1.kernel"] = tensors["conv0p1s1.kernel"][:, :, :2].copy()
    save_file(tensors, backbone)
    backbone.chmod(0o644)  # a sandbox reads it as a different user
    error = one_line(bench(*arguments(*data), code=2).stderr)
    assert "pre-trained backbone: tensor 'conv0p1s1.kernel' has shape (27, 3, 2), expected (27, 3, 4)" in error
    assert not list((tmp_path / "runs/finetune").glob("*")) and not list((tmp_path / "runs/.partial").glob("[!.]*"))


def test_an_unwritable_runs_folder(s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = one_line(bench(*arguments("--data", f"s3dis={s3dis_root}", "--runs", "file/runs"), code=3).stderr)
    assert "(--runs names another folder): cannot be written: Not a directory" in error
    error = one_line(bench("doctor", "--runs", "file/runs", code=3).stderr)
    assert "runs folder: " in error


def test_a_cache_that_cannot_be_written(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GiB free" in bench("doctor").stdout
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file/cache"))
    error = one_line(bench("doctor", code=3).stderr)
    assert "data cache: " in error and "BENCH_CACHE names another folder): cannot be written: Not a directory" in error


@pytest.mark.usefixtures("undrawn")
def test_places_that_cannot_be_written(runs: Path, s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    """If requested output cannot be written, the exit code is 3 (environment) and the message names the option."""
    (run,) = (tmp_path / "runs/finetune").iterdir()
    (scene, *_) = bench("show", run.name, "--scene", "list").stdout.split()
    (tmp_path / "file").write_text("")
    # An interrupted preparation does not block the next one.
    (Path(os.environ["BENCH_CACHE"]) / "prepared/s3dis-0.partial").mkdir(exist_ok=True)
    for option, *command in (
        ("--out", "data", "preview", "s3dis", "--root", str(s3dis_root), "--out", "file/x.png"),
        ("--out", "data", "synth", "synth-s3dis", "--out", "file/x"),
        ("--out", "data", "synth", "synth-s3dis", "--out", "file"),
        ("--out", "data", "subset", "s3dis", "--root", str(s3dis_root), "--out", "file/x"),
        ("--page", "audit", "--no-rescore", "--page", "nowhere/at/all.html"),
        ("--bundle", "audit", "--no-rescore", "--bundle", "file/x.tar.zst"),
        ("--out", "report", "--no-page", "--out", "file/x"),
        ("--out", "show", run.name, "--scene", scene, "--out", "file/x"),
    ):
        error = one_line(bench(*command, code=3).stderr)
        assert f"({option} names another f" in error and ": cannot be written: " in error, error
    assert "ends in .png" in one_line(bench("data", "preview", "synth-s3dis", "--out", "x.bmp", code=2).stderr)
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith("x")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts file systems of a few MiB; needs root."""
    mounted: list[Path] = []

    def mount(mebibytes: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], capture_output=True
        )
        if made.returncode:
            pytest.skip("needs the right to mount a small tmpfs")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [1, 3])
def test_a_full_disk(mebibytes: int, small_disk, s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    """The backbone alone exceeds the disk. Once space is free, the same command resumes."""
    disk = small_disk(mebibytes)
    command = arguments("--data", f"s3dis={s3dis_root}", "--runs", str(disk / "runs"))
    error = one_line(bench(*command, code=3).stderr)
    assert "the disk is full; free some space" in error
    assert not list(disk.glob("runs/finetune/*")), "no half-written result"
    assert all(r["outcome"] == "ok" for r in run_records(disk / "runs"))
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    bench(*command)
    assert [r["outcome"] for r in run_records(disk / "runs")] == ["ok", "ok"]


def test_a_full_disk_for_the_data(small_disk, s3dis_root: Path, tmp_path: Path) -> None:
    disk = small_disk(1)
    (disk / "ballast").write_bytes(b"x" * 900_000)
    done = subprocess.run(
        bench_command(*arguments("--data", f"s3dis={s3dis_root}")),
        cwd=tmp_path, env={**os.environ, "BENCH_CACHE": str(disk)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3 and "preparing s3dis may take 0.0 GB" in one_line(done.stderr)
    assert not list(disk.rglob("manifest.json"))


@pytest.mark.usefixtures("undrawn")
def test_reports_on_damaged_stores(runs: Path, bench: Bench, tmp_path: Path) -> None:
    for command in ("report", "show"):
        assert "no such folder of runs" in one_line(bench(command, "--runs", "nowhere", code=2).stderr)
    (path,) = (tmp_path / "runs/finetune").glob("*/record.json")
    good = path.read_text()
    record = json.loads(good)
    record["metrics"]["miou_voxel_final"] = 0.99
    path.write_text(json.dumps(record))
    for command in ("report", "show"):
        warned = bench(command).stderr
        assert "warning: not counted: " in warned and "does not match its own hash; it was edited or damaged" in warned
    path.write_text(good[:100])
    for command in ("report", "show"):
        warned = bench(command).stderr
        assert "not a record readable by this version" in warned
        assert "restore the file, or move the run's folder" in warned
    assert "nothing was removed: " in one_line(bench("clean", code=2).stderr)
    path.unlink()
    for command in ("report", "show"):
        warned = bench(command).stderr
        assert f"{path.parent.name}/record.json: not a record" in warned and "No such file" in warned
    os.symlink("/etc/hostname", path)
    assert "1 damaged" in bench("status").stdout, "a link in a record's place is not followed"
    path.unlink()
    path.write_text(good)
    (path.parent / "spec.json").write_text("{}")
    assert "not a stage spec" in bench("report").stderr
    (path.parent / "spec.json").unlink()
    assert "not a stage spec" in one_line(bench("show", path.parent.name, code=2).stderr)


def test_version_and_help(bench: Bench) -> None:
    assert re.fullmatch(r"bench \d+\.\d+\.\d+\n", bench("--version").stdout)
    assert "--debug, anywhere on the line" in " ".join(bench("--help").stdout.split())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        bench_command(*arguments("--method", "our"), "--debug"), cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" in done.stderr and "WrongUse" in done.stderr


def test_missing_options_are_wrong_use(bench: Bench) -> None:
    assert "--method" in bench("run", "--task", "s3dis-sem", code=2).stderr
    assert "No such command" in bench("frobnicate", code=2).stderr


def test_minkowski_where_it_is_not_installed(bench: Bench, s3dis_root: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("MinkowskiEngine") is not None:
        pytest.skip("MinkowskiEngine is installed here")
    error = one_line(bench(*arguments("--data", f"s3dis={s3dis_root}", "--backend", "minkowski"), code=3).stderr)
    assert "MinkowskiEngine is not installed; use --backend torch" in error


def test_minkowski_in_half_precision_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "half.yaml").write_text("extends: smoke\nname: half\nprecision: bf16\n")
    error = one_line(bench(*arguments("--profile", "./half.yaml", "--backend", "minkowski"), code=2).stderr)
    assert "profile 'half': precision bf16, but MinkowskiEngine computes in float32 only; use --backend torch" in error
    nothing_written(tmp_path)


def test_an_internal_error_shows_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys; from pretrain_bench.harness.cli import app\n"
        "import pretrain_bench.api.doctor as d\nd._torch = lambda: 1 / 0\n"
        "sys.argv = ['bench', 'doctor']\napp.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert one_line(done.stderr).startswith("error: ZeroDivisionError: division by zero (a fault of bench itself")


def test_a_gpu_that_is_not_there(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    error = one_line(bench(*arguments("--data", f"s3dis={s3dis_root}", "--device", "cuda"), code=3).stderr)
    assert "--device cuda: torch finds no CUDA device; use --device cpu" in error
    nothing_written(tmp_path)


def test_a_budget_of_gpu_size_is_refused_where_it_does_not_fit(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    what, data = ("run", "--method", "ours", "--task", "s3dis-sem", "--device", "cpu"), f"s3dis={s3dis_root}"
    error = one_line(bench(*what, "--budget", "uniform", code=2).stderr)
    assert "sized for real data, and there are none of s3dis, scannet" in error and "--budget smoke or tiny" in error
    error = one_line(bench(*what, "--budget", "uniform", "--data", data, code=2).stderr)
    assert "--pretrain-data is missing" in error and "--pretrain-data scannet=DIR, or --synthetic" in error
    nothing_written(tmp_path)
    resolved = resolve(pb.cells("scratch", "s3dis-sem"), (), pb.Settings(data=[data]))
    with pytest.raises(pb.WrongUse, match="sized for a GPU, and this machine has none"):
        check_fit(resolved._replace(machine=resolved.machine._replace(device="cpu")), synthetic=False, on_cpu=False)
    check_fit(resolved, synthetic=False, on_cpu=True)
    check_fit(resolve(pb.cells("ours", "s3dis-sem"), (), pb.Settings()), synthetic=True, on_cpu=True)


def test_a_run_without_a_budget_takes_one_that_fits(s3dis_root: Path) -> None:
    budget, (why, then) = pb.fitting_budget("ours", "s3dis-sem", pb.Settings(device="cpu"))
    assert budget == "smoke" and "because there is no GPU and no data of s3dis" in why
    assert then == "for real numbers add --data s3dis=DIR --pretrain-data scannet=DIR on a machine with a GPU"
    resolved = resolve(pb.cells("scratch", "s3dis-sem"), (), pb.Settings(data=[f"s3dis={s3dis_root}"]))
    assert not task_stand_ins(resolved) and not pretrain_stand_ins(resolved)
