"""How large an image travels is held against its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.images.size import Size, budget_of, budgets, size
from ops.errors import ConfigError
from tests.deploy.images.made import image
from tests.docs.documents import ROOT

BUDGETS = {"example": {"compressed_mb": 60}, "templates": {"rust": {"compressed_mb": 1.5}}, "compressed_mb": 7}


def test_a_budget_is_found_under_its_table() -> None:
    assert budgets(BUDGETS) == {("example",): 60_000_000, ("templates", "rust"): 1_500_000, (): 7_000_000}


@pytest.mark.parametrize("value", [0, -1, "60", True, float("nan"), float("inf")])
def test_what_is_no_size_is_an_error(value: object) -> None:
    with pytest.raises(ConfigError, match=r"budgets.toml: example.compressed_mb: expected a number of MB above 0, found"):
        budgets({"example": {"compressed_mb": value}})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("compressed_mb = 7\n[shop]\ncompressed_mb = 5\n", 5_000_000),
        ("compressed_mb = 7\n[example]\ncompressed_mb = 60\n", 7_000_000),
    ],
)
def test_an_apps_budget_stands_beside_its_dockerfile(tmp_path: Path, text: str, found: int) -> None:
    (tmp_path / "budgets.toml").write_text(text)
    assert budget_of(tmp_path / "Dockerfile", "shop") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("compresed_mb = 7\n", "compresed_mb: expected one of compressed_mb (did you mean compressed_mb?)"),
        ("[shop]\ncompressed_mb = 7\nmb = 7\n", "shop.mb: expected one of compressed_mb"),
        ("[shop]\n", "shop.compressed_mb: expected a value, it is required"),
        ("", "compressed_mb: expected a value, it is required"),
        (
            "[shpo]\ncompressed_mb = 7\n",
            "shop: expected a table with its budget, or compressed_mb above all, found one of shpo (did you mean shpo?)",
        ),
        ("[example]\ncompressed_mb = 60\n", "shop: expected a table with its budget"),
        ("[templates.shop]\ncompressed_mb = 60\n", "shop: expected a table with its budget"),
    ],
)
def test_a_key_or_a_table_that_is_misspelt_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "budgets.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        budget_of(tmp_path / "Dockerfile", "shop")
    assert f"{tmp_path}/budgets.toml: {said}" in str(caught.value)


def test_the_example_has_its_budget_whatever_it_is_called() -> None:
    assert budget_of(ROOT / "docker/Dockerfile", "blog") == budget_of(ROOT / "docker/Dockerfile", "example") is not None


def test_without_a_file_there_is_no_budget_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert budget_of(tmp_path / "Dockerfile", "shop") is None
    (tmp_path / "budgets.toml").write_text("compressed_mb =")
    with pytest.raises(ConfigError, match="cannot be read"):
        budget_of(tmp_path / "Dockerfile", "shop")


def test_an_image_over_its_budget_is_told() -> None:
    found = image({"a": b"1"}, {"b": b"2"})
    assert not size(found).over
    assert not size(found, found.compressed).over
    assert size(found, found.compressed - 1).over


def test_layers_are_told_with_what_made_them_without_secrets() -> None:
    found = size(image({"a": b"1"}, made_by=("RUN TOKEN=hunter2hunter2 make",)), 1).document()
    assert found["layers"][0]["instruction"] == "RUN TOKEN=… make"
    assert (found["over"], found["exact"], found["budget_bytes"]) == (True, True, 1)
    assert "RUN TOKEN=…" in found["advice"]


@pytest.mark.parametrize(
    ("made", "advice"),
    [
        ("RUN apt-get install everything", "install less"),
        ("COPY . /app", "copy less"),
        ("ADD file:4b03 in /", "it is of the base"),
        ("# debian.sh --arch 'amd64'", "it is of the base"),
        ("", "one without a history: it is of the base"),
    ],
)
def test_advice_is_about_the_largest_layer(made: str, advice: str) -> None:
    assert advice in Size("shop:1", 105, ((100, made), (5, "COPY x /"))).advice


def test_an_image_without_layers_has_nothing_to_advise() -> None:
    assert "0.0 MB" in Size("shop:1", 0, ()).advice
