"""Files that strangers made to run code or to reach other files: a chat template, a config. Each is one clear error."""

from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from orca2.errors import CheckpointError, ConfigError, ModelError
from orca2.generation.students import find_student
from orca2.modelling.embedded import embedded_tokenizer
from orca2.names import is_file_name
from orca2.rendering import prepare_tokenizer
from orca2.rendering.template import TemplateFormat, TemplateRenderer
from orca2.runs import RunDirectory
from orca2.settings import build, check, check_command_line, compose_config
from orca2.settings.curriculum import Curriculum, Stage
from orca2.settings.option_files import options_by_name
from orca2.settings.targets import problems
from tests.commands import ROOT


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The demo student's tokenizer; a test hands it a template."""
    made = embedded_tokenizer(300)
    prepare_tokenizer(made, build(compose_config("train").format), None)
    return made


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.popen('touch ' ~ PATH).read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for m in messages %}{{ m.update({'role': 'system'}) }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}",
        "{{ messages[7].content }}",
        "{{ 1 / 0 }}",
        "{{ range(10**9) | list }}",
    ],
)
def test_a_hostile_chat_template_is_refused(tokenizer: PreTrainedTokenizerBase, template: str, tmp_path: Path) -> None:
    """A template is a program that comes with the weights; it may write prompts and nothing else."""
    target = tmp_path / "owned"
    with pytest.raises(ModelError, match="chat template"):
        TemplateRenderer(tokenizer, TemplateFormat("own", template.replace("PATH", f"'{target}'"), "omit"))
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {path}']",
        "_target_: os.system\nname: own\ncommand: touch {path}",
        "_target_: orca2.runs.os.system\nname: own\ncommand: touch {path}",
        "_target_: builtins.eval\nname: own\nsource: \"open('{path}', 'w')\"",
        "name: own\ninner: {{_target_: subprocess.run, args: [touch, '{path}']}}",
    ],
)
def test_a_config_of_strangers_runs_nothing(text: str, tmp_path: Path) -> None:
    """Options are passed on as files; one that could name any function would be a program."""
    target = tmp_path / "owned"
    file = tmp_path / "own.yaml"
    file.write_text(text.format(path=target), encoding="utf-8")
    with pytest.raises(ConfigError):
        check_command_line("train", options_by_name([f"strategy={file}"], ROOT / "conf"), ROOT / "conf")
    assert not target.exists()


OUTSIDE = ("../x", "/x", "a/../../x", "a/b", "..", ".x", "a\\b", "a\nb", "", "x" * 300)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_becomes_a_file_leads_nowhere(name: str) -> None:
    """An option file of a stranger could put the outcome of a measurement, or a stage's run, anywhere."""
    assert not is_file_name(name)
    node = {"strategy": {"_target_": "orca2.strategies.Strategy", "name": name, "instruction": "Think."}}
    assert any("becomes the name of files" in problem for problem in problems(node))
    with pytest.raises(ConfigError, match="becomes a folder"):
        Curriculum(name="c", stages={name: Stage(name="s", source=None)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_run_stays_below_the_runs(name: str) -> None:
    """`name=../../x` began a run outside of the runs; a user who wants that says `run_dir=`."""
    with pytest.raises(ConfigError, match="becomes a folder below the runs"):
        check(compose_config("train", [f"name={name}"]))


def test_names_of_today_are_names_of_files() -> None:
    """No option of the project's own may be refused by that rule."""
    names = [yaml.safe_load(file.read_text()).get("name") for file in (ROOT / "conf").glob("*/*.yaml")]
    assert len(names) > 50
    assert [name for name in names if isinstance(name, str) and "$" not in name and not is_file_name(name)] == []


@pytest.mark.parametrize("repo", ["../x", "a/..", "/etc", "a/../../x", "..", "a/b/c"])
def test_the_id_of_a_repository_leads_to_no_other_folder(repo: str) -> None:
    """The hub's cache names folders after them; nothing is fetched here, as there is no network."""
    with pytest.raises((ConfigError, ModelError)):
        find_student(repo)


def test_a_stored_config_runs_nothing(tmp_path: Path) -> None:
    """A run directory is copied from machine to machine; its config is data."""
    run = RunDirectory(tmp_path)
    run.config.write_text(f"a: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n", encoding="utf-8")
    run.manifest.write_text("{}", encoding="utf-8")
    assert run.stored_config() is None
    with pytest.raises(CheckpointError, match="cannot be read"):
        run.open_or_resume({}, [])
    assert not (tmp_path / "owned").exists()
