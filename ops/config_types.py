"""What values of the configuration can be: the types that its tables are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from ops import config_values as check
from ops import durations

MAX_DURATION = 86400.0
LONGEST = 36525 * 86400.0

Text = Annotated[str, AfterValidator(check.literal)]
Variable = Annotated[str, AfterValidator(check.variable)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Flag = Annotated[bool, Field(strict=True)]
Size = Annotated[str, BeforeValidator(durations.size)]
Wait = Annotated[float, BeforeValidator(durations.seconds), Field(ge=0, le=MAX_DURATION)]
Pause = Annotated[float, BeforeValidator(durations.seconds), Field(ge=0.005, le=MAX_DURATION)]
Period = Annotated[float, BeforeValidator(durations.period), Field(ge=0, le=LONGEST)]
CommandLine = Annotated[tuple[Text, ...], Field(min_length=1)]


def _under_root(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute: relative ones start at the folder of ops.toml, `~` is the home folder."""
    context = info.context or {}
    home = context.get("home", "~")
    text = str(path)
    full = Path(home + text[1:]).expanduser() if text == "~" or text.startswith("~/") else path
    return Path(context["root"], full) if "root" in context else full


def existing_file(path: Path, info: ValidationInfo) -> Path:
    """Check that a file is there, where a configuration is loaded."""
    if info.context and not path.is_file():
        raise ValueError(f"an existing file (looked for {path})")
    return path


AnyPath = Annotated[Path, BeforeValidator(check.file_path), AfterValidator(_under_root)]
File = Annotated[AnyPath, AfterValidator(existing_file)]


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check that nothing stands there twice."""
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"each one once (twice: {', '.join(twice)})")
    return values
