import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import melastic
from melastic.cli import VERBS
from tests.conftest import ROOT, tone

PACKAGE = Path(melastic.__file__).parent
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


def functions(path):
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) < 350
    for function in functions(path):
        assert function.end_lineno - function.lineno < 60, function.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_documented_arguments_are_the_arguments(path):
    for function in functions(path):
        text = ast.get_docstring(function) or ""
        if "Args:\n" not in text:
            continue
        section = re.split(r"\n(?:Returns|Raises|Yields|Source)\b", text.split("Args:\n")[1])[0]
        documented = re.findall(r"^    \*{0,2}(\w+):", section, flags=re.M)
        signature = function.args
        names = [a.arg for a in (*signature.posonlyargs, *signature.args, *signature.kwonlyargs)]
        names += [a.arg for a in (signature.vararg, signature.kwarg) if a]
        names = [name for name in names if name not in ("self", "cls")]
        assert documented == names, f"{function.name} in {name_of(path)}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_only_the_edges_print_and_only_the_loop_draws(path):
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }  # fmt: skip
    room = path.relative_to(PACKAGE).parts[0]
    assert "print" not in calls
    if room in ("encoders", "patches", "pooling.py"):
        drawing = {"torch.rand", "torch.randn", "torch.randint", "torch.randperm"}
        assert not calls & drawing
        assert not any(".cuda" in call or ".half" in call for call in calls)


def test_a_package_imports_without_the_optional_ones():
    code = (
        "import sys; blocked = ('av', 'huggingface_hub', 'tensorboard', 'wandb', 'transformers');"
        "sys.modules.update({name: None for name in blocked});"
        "import melastic; melastic.load('digits'); import melastic.cli.train, melastic.cli.show"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_documented():
    for name in melastic.__all__:
        assert inspect.getdoc(getattr(melastic, name)), name


def readme_blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("seven.wav", tone(440, 0.5), 16_000)
    (block,) = readme_blocks("python")
    exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(block.strip().splitlines()) <= 6, "five lines and the import"


def test_the_shell_of_the_readme_names_commands_that_exist():
    blocks = "\n".join(readme_blocks("sh"))
    lines = [line for line in blocks.splitlines() if line.startswith("melastic ")]
    assert len(lines) == 5
    verbs = sorted(VERBS, key=len, reverse=True)
    for line in lines:
        words = line.removeprefix("melastic ")
        assert any(words.startswith(verb) for verb in verbs), line


def test_links_in_the_documents_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for target in re.findall(r"`((?:docs|benchmarks|examples)/[\w./-]+)`", text):
            assert (ROOT / target).exists(), f"{page.name}: {target}"
