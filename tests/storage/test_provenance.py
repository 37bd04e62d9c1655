from lgbatch.storage.provenance import differences, fingerprint


def test_differences_name_the_changed_settings_only() -> None:
    old = {"model": {"weights": "a" * 64, "kind": "x"}, "size": 5}
    new = {"model": {"weights": "b" * 64, "kind": "x"}, "resize": 7, "size": 5}
    assert differences(old, new) == f"model.weights {'a' * 12} (now {'b' * 12}), resize None (now 7)"
    assert fingerprint(old) == fingerprint(dict(reversed(old.items()))) != fingerprint(new)
