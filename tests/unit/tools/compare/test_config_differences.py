"""Only what differs, at the key where it does."""

from typing import Any

from lit_vae.tools.compare.differences import config_differences


def component(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"lib.{name}", "init_args": init_args}


def test_equal_configurations_have_no_differences() -> None:
    config = {"seed": 0, "model": component("VAE", hidden=[1, 2])}
    assert config_differences([config, dict(config)]) == {}


def test_an_argument_of_one_class_stands_at_its_dotted_key() -> None:
    configs = [{"model": component("VAE", decoder=component("MLP", hidden=h, bias=True))} for h in ([8], [16, 8])]
    assert config_differences(configs) == {"model.decoder.hidden": ["[8]", "[16, 8]"]}


def test_what_only_one_class_takes_stands_with_the_class() -> None:
    configs = [
        {"model": component("AE", lr=0.1, latent=[4])},
        {"model": component("VAE", lr=0.2, prior=component("Normal", shape=[4]), beta=1.0)},
    ]
    assert config_differences(configs) == {
        "model": ["lib.AE(latent=[4])", "lib.VAE(prior=lib.Normal(shape=[4]), beta=1)"],
        "model.lr": ["0.1", "0.2"],
    }


def test_arguments_of_several_classes_are_compared_by_those_that_take_them() -> None:
    encoder = component("MLP", hidden=[8])
    configs = [
        {"model": component("AE", lr=0.1, encoder=encoder)},
        {"model": component("VAE", lr=0.1, encoder=encoder, beta=2.0)},
        {"model": component("CodePrior", lr=0.5, grids=[[4, 4]])},
    ]
    assert config_differences(configs) == {
        "model": ["lib.AE", "lib.VAE(beta=2)", "lib.CodePrior(grids=[[4, 4]])"],
        "model.lr": ["0.1", "0.1", "0.5"],
    }
    configs[1]["model"]["init_args"]["encoder"] = component("MLP", hidden=[16])
    assert config_differences(configs)["model.encoder"] == ["lib.MLP(hidden=[8])", "lib.MLP(hidden=[16])", ""]


def test_components_of_a_list_are_found_by_their_class() -> None:
    samples, ema = component("Samples", n=4), component("EMA", decay=0.9)
    configs = [{"callbacks": [ema, samples]}, {"callbacks": [component("Samples", n=8)]}, {"callbacks": [samples]}]
    assert config_differences(configs) == {
        "callbacks.EMA": ["lib.EMA(decay=0.9)", "", ""],
        "callbacks.Samples.n": ["4", "8", "4"],
    }
    twice = [{"callbacks": [component("A", n=1), component("A", n=n)]} for n in (2, 3)]
    assert config_differences(twice) == {"callbacks.A 2.n": ["2", "3"]}


def test_a_key_that_is_missing_is_blank_and_none_is_none() -> None:
    assert config_differences([{"a": None, "b": 1}, {"b": 2}]) == {"a": ["none", ""], "b": ["1", "2"]}
    assert config_differences([{"a": {"x": 1}}, {"a": None}]) == {"a": ["{x: 1}", "none"]}
