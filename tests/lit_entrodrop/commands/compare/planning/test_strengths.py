from lit_entrodrop.commands.compare.planning.strengths import trial_name, with_strength


def test_strength_leaves_the_config_as_it_was() -> None:
    config = {"model": {"regularizers": [{"class_path": "A", "init_args": {"x": 1}}]}}
    changed = with_strength(config, {"x": 2}, "here")
    assert changed["model"]["regularizers"][0]["init_args"] == {"x": 2}
    assert config["model"]["regularizers"][0]["init_args"] == {"x": 1}


def test_trial_is_named_in_full_where_the_end_is_ambiguous() -> None:
    assert trial_name({"a.max": 1, "b.max": 2}) == "a.max=1,b.max=2"
