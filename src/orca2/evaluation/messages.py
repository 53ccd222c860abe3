"""The system messages under which a student is measured, each in turn."""

from collections.abc import Mapping
from dataclasses import dataclass

from orca2.erasing import Erasing
from orca2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SystemMessages:
    """Messages by name, each given by the erasing whose message at inference it is.

    Raises:
        ConfigError: there is none, or two have one text, whose samples could not be told apart.
    """

    name: str
    erasings: Mapping[str, Erasing]
    own: bool
    """Whether to ask also under the message that the student was trained to be asked under, if it is another."""

    def __post_init__(self) -> None:
        if not self.erasings and not self.own:
            raise ConfigError(f"messages={self.name} has no message; gather some in its defaults list")
        names: dict[str, str] = {}
        for name, erasing in self.erasings.items():
            first = names.setdefault(erasing.inference, name)
            if first != name:
                raise ConfigError(f"messages={self.name}: {first} and {name} ask under the same text; leave one out")

    def of(self, own: Mapping[str, str]) -> dict[str, str]:
        """Name -> text, in order. `own`: the student's, see `StudentFiles.own_messages`.

        Raises:
            ConfigError: only the student's own is wanted and it has none.
        """
        texts = {name: erasing.inference for name, erasing in self.erasings.items()}
        if self.own:
            # A name that is taken means another text here: `cautious` of a project that rewrote it.
            texts |= {
                name if name not in texts else f"{name}_own": text
                for name, text in own.items()
                if text not in texts.values()
            }
        if not texts:
            raise ConfigError(
                f"messages={self.name}: the student does not say under which message it was trained, as models of "
                "others do not; choose messages=empty or messages=cautious, and format=own for its own chat template"
            )
        return texts
