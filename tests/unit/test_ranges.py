"""Numbers within their ranges: from Python, and in a whole configuration with the setting that holds them."""

import math
from typing import Annotated, Any, Literal

import pytest
from lightning.pytorch import Trainer

from lit_vae.ranges import BelowOne, NotNegativeFloat, PositiveInt, Within, checked, problems_in

NAN, INF = math.nan, math.inf


class Part:
    @checked
    def __init__(
        self,
        weight: NotNegativeFloat | str = 1.0,
        widths: list[PositiveInt] | None = None,
        pair: tuple[PositiveInt, BelowOne] = (1, 0.0),
        free: float = 0.0,
    ) -> None:
        self.weight, self.widths, self.pair, self.free = weight, widths, pair, free


class Finer(Part):
    @checked
    def __init__(self, depth: Annotated[int, Within(ge=2, le=4)], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth


class Stranger:
    def __init__(self, speed: float) -> None: ...


def in_config(**init_args: Any) -> list[str]:
    name = "Finer" if "depth" in init_args else "Part"
    config = {"model": {"class_path": f"{__name__}.{name}", "init_args": init_args}}
    return [f"{problem} {problem.key}" for problem in problems_in(config, {}, {})]


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("weight", -1, "weight (=-1) must be at least 0."),
        ("weight", NAN, "weight (=nan) must be a finite number and at least 0."),
        ("weight", INF, "weight (=inf) must be a finite number and at least 0."),
        ("weight", 1e39, "weight (=1e+39) must be a finite number and at least 0."),
        ("widths", [1, 0], "widths (=0) must be at least 1."),
        ("widths", [10**12], "widths (=1000000000000) must be at least 1 and at most 2147483647."),
        ("pair", (0, 0.5), "pair (=0) must be at least 1."),
        ("pair", (1, 1.0), "pair (=1.0) must be at least 0 and less than 1."),
        ("pair", (1, NAN), "pair (=nan) must be a finite number and at least 0 and less than 1."),
        ("depth", 5, "depth (=5) must be at least 2 and at most 4."),
    ],
)
def test_a_number_out_of_range_is_refused_from_python_and_in_a_configuration(argument, value, expected):
    kind = Finer if argument == "depth" else Part
    with pytest.raises(ValueError) as error:
        kind(**{argument: value})
    assert str(error.value) == f"{kind.__name__}: {expected}"
    (problem,) = in_config(**{argument: value})
    assert problem.startswith(f"{kind.__name__}: {expected} model.init_args.{argument}")


class Choosing:
    @checked
    def __init__(
        self, way: Literal["up", "down"] | None = None, sides: Literal[1, 3] = 1, any_text: str | None = None
    ) -> None:
        self.given = way, sides, any_text


def test_a_value_that_a_literal_does_not_list_is_refused():
    with pytest.raises(ValueError) as error:
        Choosing("left", sides=2)
    assert str(error.value).splitlines() == [
        "Choosing: way (='left') must be one of up, down, null.",
        "Choosing: sides (=2) must be one of 1, 3.",
    ]
    assert Choosing(None, 3, "left").given == (None, 3, "left")
    assert Choosing("up").given == ("up", 1, None)


def test_what_is_in_range_is_taken_and_what_is_no_number_is_left_alone():
    for given in (
        {},
        {"weight": "auto", "widths": None},
        {"weight": 0, "widths": [1], "pair": (2, 0.0), "free": -1e38},
    ):
        assert vars(Part(**given)) == vars(Part()) | given
        assert in_config(**given) == []
    assert in_config(weight=True) == []  # a switch is no number


def test_arguments_of_bases_have_their_ranges_and_all_problems_are_named():
    with pytest.raises(ValueError) as error:
        Part(weight=-1.0, widths=[0, 1, 0])
    assert len(str(error.value).splitlines()) == 3
    found = in_config(depth=1, weight=-1.0, widths=[1, 0])
    assert [problem.rpartition(" ")[2] for problem in found] == [
        "model.init_args.depth", "model.init_args.weight", "model.init_args.widths.1",
    ]  # fmt: skip


def test_numbers_of_strangers_are_finite_and_within_what_is_known_of_them():
    def problems(speed: float) -> list[str]:
        config = {"a": [{"class_path": f"{__name__}.Stranger", "init_args": {"speed": speed}}], "b": {"speed": speed}}
        return [problem.key for problem in problems_in(config, {"b": Stranger}, {Stranger: {"speed": within}})]

    within = Annotated[float, Within(gt=0)]
    assert problems(1.0) == []
    for speed in (0.0, -1.0, NAN, INF):
        assert problems(speed) == ["a.0.init_args.speed", "b.speed"]
    assert [p.key for p in problems_in({"x": {"y": [1.0, {"z": NAN}]}, "n": NAN}, {}, {})] == ["x.y.1.z", "n"]


def test_a_wrapped_constructor_still_refuses_wrong_arguments_and_keeps_its_signature():
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        Part(width=1)
    assert Part(2.0, [3]).widths == [3]
    assert Part.__init__.__name__ == "__init__"


def test_null_is_no_number_unless_its_annotation_has_it():
    given = {"steps": None, "every_n_epochs": None}
    parts = ["callbacks.Interpolations", "callbacks.LatentReport"]
    config = {"callbacks": [{"class_path": part, "init_args": given} for part in parts]}
    problems = problems_in(config, {}, {})
    assert [problem.key for problem in problems] == [
        "callbacks.0.init_args.steps",
        "callbacks.0.init_args.every_n_epochs",
    ]
    assert str(problems[0]) == "Interpolations: steps (=None) must be a number, not null."


@pytest.mark.parametrize("given", [{}, {"class_path": "typing.Union"}], ids=["as given", "as parsed"])
def test_a_mapping_without_a_class_is_no_component(given):
    """The parser takes the annotation of a callable's result for the class."""
    config = {"model": {"class_path": "lit_vae.models.VAE", "init_args": {"lr_scheduler": given}}}
    (problem,) = problems_in(config, {}, {})
    assert str(problem) == "VAE: lr_scheduler (={}) must be a component with a class_path."
    assert problem.key == "model.init_args.lr_scheduler"


def test_null_is_no_number_of_torch_either_unless_that_is_its_default():
    def problems(cls: str, **given: None) -> list[str]:
        scheduler = {"class_path": f"torch.optim.lr_scheduler.{cls}", "init_args": given}
        return list(map(str, problems_in({"lr_scheduler": scheduler}, {}, {})))

    expected = ["CosineAnnealingLR: eta_min (=None) must be a number, not null."]
    assert problems("CosineAnnealingLR", eta_min=None) == expected
    assert problems("OneCycleLR", total_steps=None, epochs=None) == []


def test_null_is_neither_true_nor_false_nor_text():
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"differentiable": None, "foreach": None}}
    trainer = {"detect_anomaly": None, "enable_progress_bar": None, "accelerator": "cpu"}
    data = {"class_path": "lit_vae.data.MNIST", "init_args": {"root": None}}
    found = problems_in({"optimizer": optimizer, "trainer": trainer, "data": data}, {"trainer": Trainer}, {})
    assert list(map(str, found)) == [
        "Adam: differentiable (=None) must be true or false, not null.",
        "Trainer: detect_anomaly (=None) must be true or false, not null.",
        "MNIST: root (=None) must be text, not null.",
    ]
