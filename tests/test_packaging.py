"""What is published: the wheel's contents, its installation away from the repository, the lazy names."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import hf_llava_vqa

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_llava_vqa"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the repository; its output, or a failure that shows it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    run(sys.executable, "-m", *build, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_under(folder: Path, prefix: str) -> set[str]:
    """The files of `folder`, as the wheel should name them."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in files}


@pytest.mark.e2e
def test_wheel_carries_the_whole_package(contents: set[str]) -> None:
    """Modules, templates, metric folders with README and requirements, the marker of typed packages."""
    assert files_under(PACKAGE, "hf_llava_vqa") <= contents
    assert "hf_llava_vqa/py.typed" in contents
    assert {f"hf_llava_vqa/metrics/vizwiz_accuracy/{name}" for name in ("README.md", "requirements.txt")} <= contents
    assert any(name.endswith(".jinja") for name in contents)


@pytest.mark.e2e
def test_wheel_carries_launch_files_and_recipes(contents: set[str]) -> None:
    assert files_under(ROOT / "accelerate_configs", "hf_llava_vqa/accelerate_configs") <= contents
    assert files_under(ROOT / "recipes" / "configs", "hf_llava_vqa/recipes/configs") <= contents
    assert "hf_llava_vqa/recipes/sft_vizwiz.py" in contents


@pytest.mark.e2e
def test_wheel_carries_nothing_else(contents: set[str]) -> None:
    assert {name.split("/")[0] for name in contents} == {"hf_llava_vqa", "hf_llava_vqa-0.1.0.dist-info"}
    assert not [name for name in contents if name.endswith(".safetensors") or "/recipes/demo/" in name]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and borrows all else from this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    install = ("pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    run(sys.executable, "-m", *install, cwd=folder)
    # A path entry does not run the borrowed folder's own .pth files: its editable install stays unseen.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.mark.e2e
def test_installed_wheel_imports_and_finds_its_metric(installed: Path, tmp_path: Path) -> None:
    program = """
import sys
import hf_llava_vqa, hf_llava_vqa.training
from pathlib import Path
package = Path(hf_llava_vqa.__file__).parent
metric = Path(hf_llava_vqa.metric_path("vizwiz_accuracy"))
assert package.is_relative_to(sys.prefix), package
assert metric.is_relative_to(package), metric
import evaluate
result = evaluate.load(str(metric)).compute(predictions=["cola"], references=[["cola"] * 10])
print(hf_llava_vqa.__version__, result["accuracy"])
"""
    assert run(installed, "-c", program, cwd=tmp_path).split() == ["0.1.0", "1.0"]


@pytest.mark.e2e
def test_installed_launch_file_is_read(installed: Path, tmp_path: Path) -> None:
    program = """
from importlib.resources import files
from accelerate.commands.config.config_args import load_config_from_file
folder = files("hf_llava_vqa") / "accelerate_configs"
for name in ("cpu.yaml", "zero3_8.yaml"):
    print(load_config_from_file(str(folder / name)).num_processes)
"""
    assert run(installed, "-c", program, cwd=tmp_path).split() == ["1", "8"]


@pytest.mark.e2e
def test_installed_recipe_refuses_a_missing_flag_in_one_line(installed: Path, tmp_path: Path) -> None:
    """The recipe of the wheel starts without the repository."""
    recipe = [str(installed), "-m", "hf_llava_vqa.recipes.sft_vizwiz", "--source", "vizwiz"]
    done = subprocess.run(recipe, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --model_name_or_path is missing")
    assert "Traceback" not in done.stderr


def test_importing_the_package_imports_no_framework(tmp_path: Path) -> None:
    program = "import sys, hf_llava_vqa; print({'torch', 'datasets', 'evaluate'} & set(sys.modules))"
    assert run(sys.executable, "-c", program, cwd=tmp_path).strip() == "set()"


@pytest.mark.parametrize("name", [name for name in hf_llava_vqa.__all__ if name != "__version__"])
def test_a_public_name_is_what_it_says(name: str) -> None:
    assert getattr(hf_llava_vqa, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_dataset'"):
        hf_llava_vqa.load_dataset  # noqa: B018 -- the access is the test


def test_versions_agree() -> None:
    assert f'version = "{hf_llava_vqa.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
