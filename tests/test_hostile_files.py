"""Files that strangers made to run code: a model's chat template, a config by path. Each is one clear error."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from orca2.errors import ConfigError, ModelError
from orca2.modelling.embedded import embedded_tokenizer
from orca2.rendering import prepare_tokenizer
from orca2.rendering.template import TemplateFormat, TemplateRenderer
from orca2.settings import build, check_command_line, compose_config
from orca2.settings.option_files import options_by_name
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
