from lit_entrodrop.commands.compare.planning.config_differences import digest, first_difference


def test_digest_heeds_what_has_an_effect() -> None:
    config = {"trainer": {"max_epochs": 2, "default_root_dir": "a"}, "data": {"num_workers": 0}}
    moved = {"trainer": {"max_epochs": 2, "default_root_dir": "b"}, "data": {"num_workers": 4}}
    longer = {"trainer": {"max_epochs": 3, "default_root_dir": "a"}, "data": {"num_workers": 0}}
    assert digest(config) == digest(moved) != digest(longer)
    assert first_difference(config, moved) is None
    assert first_difference(longer, config) == "trainer.max_epochs is 3, not 2"
    assert first_difference({"a": [1]}, {"a": []}) == "a is absent, not []"
