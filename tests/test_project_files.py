"""The files around the code agree with it: versions, workflows, make targets, issue forms, names of files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_house import ORDER

import zsadbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
EXAMPLES = {"methods/brightness.py"}  # files that a page tells its reader to write
# Hosts of package registries, in parts, because this file is searched as well.
REGISTRIES = (
    "pypi org", "pythonhosted org", "anaconda org", "npmjs org", "npmjs com", "crates io", "docker io", "ghcr io",
    "quay io", "debian org", "download.pytorch org", "rubygems org", "packagist org", "golang org",
)  # fmt: skip


def tracked() -> list[Path]:
    """Return the files that git knows, new ones included; skips the test where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def workflow(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job.get("steps", [])]


def test_changelog_citation_and_package_have_one_version():
    headings = re.findall(r"^## \[(.+?)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] == zsadbench.__version__
    assert all(date == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in headings)
    assert "unreleased" not in [date for _, date in headings[1:]]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == zsadbench.__version__


def test_the_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]


def test_tested_promised_and_required_pythons_are_the_same():
    promised = [re.search(r"Python :: (3\.\d+)$", line) for line in PROJECT["classifiers"]]
    versions = [match[1] for match in promised if match]
    matrix = workflow(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert matrix == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert ruff == "py" + versions[0].replace(".", "")
    for page in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in (ROOT / page).read_text(), page


def test_the_readme_lists_the_wings_in_the_order_that_is_tested():
    table = (ROOT / "README.md").read_text().partition("| wings |")[2].partition("\n\n")[0]
    lines = [re.findall(r"`(\w+)(?:\.py)?`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert lines == [list(wings) for wings in ORDER]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_steps_call_what_exists(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert steps(path)
    for step in steps(path):
        called = step.get("run", "")
        assert set(re.findall(r"\bmake ([\w-]+)", called)) <= targets, called
        for script in re.findall(r"(?:python|bash) ((?:scripts|benchmarks)/\S+|\.ci/\S+)", called):
            assert (ROOT / script).is_file(), script
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)*@[\w./-]+", step["uses"]), step["uses"]


def test_releases_are_published_without_a_secret_and_after_the_wheel_was_tried():
    jobs = workflow(ROOT / ".github/workflows/release.yml")["jobs"]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["needs"] == "build"
    assert "make dist" in [step.get("run") for step in jobs["build"]["steps"]]


def test_documented_make_targets_exist_and_none_is_hidden():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    shown = set(re.findall(r'echo "make ([\w-]+)', makefile))
    assert shown == phony - {"help", "clean"}
    for page in ROOT.glob("*.md"):
        assert set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)?)\b(?=[`\s]*(?:#|`|$))", page.read_text(), re.M)) <= phony, (
            page
        )


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_questions_that_have_names(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    identifiers = [field["id"] for field in fields]
    assert len(set(identifiers)) == len(identifiers)
    for field in fields:
        assert field["attributes"]["label"]
        assert ("options" in field["attributes"]) == (field["type"] in ("dropdown", "checkboxes"))


def test_every_yaml_and_toml_file_parses():
    for path in tracked():
        if path.suffix in (".yml", ".yaml", ".cff"):
            assert yaml.safe_load(path.read_text()), path
        elif path.suffix == ".toml":
            assert tomllib.loads(path.read_text()), path


def test_commits_are_held_to_the_tools_of_the_environment():
    """Hooks run what `make setup` installed: two versions of a formatter undo each other's work."""
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert {hook["entry"].split()[0] for hook in hooks} == {".venv/bin/ruff", ".venv/bin/mypy"}
    assert {hook["language"] for hook in hooks} == {"system"}


def test_the_image_holds_what_the_wheel_is_made_of_and_runs_as_a_user():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {folder.split("/")[0] for folder in setup["package-dir"].values()} | {"zsadbench"}
    assert folders | {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} == copied
    user = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user and user[-1] not in ("root", "0")
    admitted = re.findall(r"^!([\w.]+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(admitted) == copied


def test_no_file_names_the_host_of_a_package_registry():
    hosts = re.compile("|".join(re.escape(host.replace(" ", ".")) for host in REGISTRIES))
    for path in tracked():
        assert not (found := hosts.search(path.read_text(encoding="utf-8", errors="ignore"))), f"{path}: {found}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_paths_that_the_pages_of_the_root_name_exist(page):
    """Paths in code marks that begin with a folder of the project, and links; names in capitals are the reader's."""
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if path.parent != ROOT}
    named = re.findall(r"`((?:[\w.-]+/)+[\w.*-]*)`|\]\((?!https?:)([^)#]+)\)", page.read_text())
    paths = {first or second for first, second in named if second or first.split("/")[0] in folders}
    wrong = [path for path in paths - EXAMPLES if not re.search("[A-Z]{3,}", path) and not list(ROOT.glob(path))]
    assert not wrong


PYPROJECT = """
[project]
dependencies = ["numpy>=1.26", "open_clip_torch >= 2.32, <4", "timm[extra]>=1.0.24; python_version > '3'"]
[project.optional-dependencies]
report = ["jinja2>=3.1"]
dev = ["pyyaml"]
"""


def lowest(*extras: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(root / "scripts/lowest_versions.py"), *extras]
    return subprocess.run(script, capture_output=True, text=True, check=False)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A project of three dependencies, with the script."""
    (tmp_path / "scripts").mkdir()
    source = (ROOT / "scripts/lowest_versions.py").read_text()
    (tmp_path / "scripts/lowest_versions.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


def test_lowest_versions_are_pins_of_the_dependencies_and_of_the_extras_that_are_named(other):
    assert lowest(root=other).stdout.split() == ["numpy==1.26", "open_clip_torch==2.32", "timm==1.0.24"]
    assert lowest("report", root=other).stdout.split()[-1] == "jinja2==3.1"


@pytest.mark.parametrize(
    ("extra", "sentence"), [("dev", "requires 'pyyaml'; expected a lower bound"), ("x", "no extra x")]
)
def test_a_dependency_without_a_bound_and_an_unknown_extra_are_sentences(extra, sentence, other):
    done = lowest(extra, root=other)
    assert done.returncode == 1 and done.stdout == ""
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_every_dependency_of_users_has_a_lower_bound_that_make_tests():
    assert re.search(r"lowest_versions\.py report dask", (ROOT / "Makefile").read_text())
    assert lowest("report", "dask").returncode == 0
