"""What a user calls boards: addresses, names, and the file that they are written in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edgeseq.devices.remote.inventory import (
    FILE_VARIABLE,
    Device,
    add_device,
    check_name,
    find_device,
    inventory_file,
    parse_target,
    read_devices,
    remove_device,
)
from edgeseq.devices.remote.target import Local, Ssh, parse_url
from edgeseq.errors import InputError

COMMENTED = """# my boards

# the one in the kitchen
[kitchen]
url = "ssh://pi@kitchen" # wired
# its python is old
python = "/opt/python3.12"

# the one on the desk
["the desk"]
url = "ssh://root@[fe80::1]:2222"

[last]
url = "ssh://last"
# the end
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "devices.toml"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("local", Local()),
        ("ssh://board", Ssh("board")),
        ("ssh://Kitchen", Ssh("Kitchen")),  # the name of a block in the user's ssh configuration: case matters
        ("ssh://pi@raspberrypi.local:2222", Ssh("raspberrypi.local", "pi", 2222)),
        ("ssh://pi@10.0.0.7/", Ssh("10.0.0.7", "pi")),
        ("ssh://pi@[fe80::1%25usb0]:22", Ssh("fe80::1%usb0", "pi", 22)),
        ("ssh://user@domain@board", None),
    ],
)
def test_addresses(text, target):
    if target is None:
        with pytest.raises(InputError):
            parse_url(text)
    else:
        assert parse_url(text) == target
        assert parse_url(target.url) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pi@board", "is not the address of a board: write ssh://user@host"),
        ("http://board", "is not the address"),
        ("SSH", "is not the address"),
        ("ssh://", "'' is not the name or address of a host"),
        ("ssh://pi:secret@board", "a password is not taken.*ssh-copy-id"),
        ("ssh://board/home", "is not the address"),
        ("ssh://board?x=1", "is not the name or address"),
        ("ssh://board:0", "not a port"),
        ("ssh://board:65536", "not a port"),
        ("ssh://board:", "'' is not a port"),
        ("ssh://board:ssh", "is not the address"),
        ("ssh://-oProxyCommand=touch HIT", "is not the name or address"),
        ("ssh://-l@board", "is not the name of a user"),
        ("ssh://$(id)", "is not the name or address"),
        ("ssh://board;id", "is not the name or address"),
        ("ssh://a b", "is not the name or address"),
        ("ssh://bo\nard", "is not the name or address"),
        ("ssh://board\n", "is not the name or address"),
        ("ssh://`id`@board", "is not the name of a user"),
        ("ssh://%6c@board", "is not the name of a user"),
        ("ssh://[::1;id]", "is not the name or address"),
        ("ssh://[]", "is not the name or address"),
    ],
)
def test_what_is_no_address_is_refused_with_what_is_wrong(text, said):
    with pytest.raises(InputError, match=said):
        parse_url(text)


@given(st.text())
@example("-oProxyCommand=x")
@example("%h")
def test_whatever_is_taken_for_a_host_or_a_user_is_harmless_to_a_shell(text):
    for url in (f"ssh://{text}", f"ssh://{text}@host", text):
        try:
            target = parse_url(url)
        except InputError:
            continue
        for part in filter(None, (getattr(target, "host", None), getattr(target, "user", None))):
            assert not set(part) & set(" \t\n\"'`$\\;&|<>(){}*?!#~=,/")
            assert part[0] != "-"


def test_a_board_is_found_by_its_name_its_address_or_as_local(file):
    device = Device("ssh://pi@kitchen:2200", python="python3.12", accept_new_host_key=True)
    assert add_device("kitchen", device, file) == file
    assert find_device("kitchen", file) == device
    assert parse_target("kitchen", file) == Ssh("kitchen", "pi", 2200)
    assert find_device("ssh://pi@other", file) == Device("ssh://pi@other")
    assert parse_target("local", file) == Local()


def test_an_unknown_name_says_the_closest_one(file):
    with pytest.raises(InputError, match="no device is called 'kitchen', there are none yet: edgeseq devices add"):
        find_device("kitchen", file)
    add_device("kitchen", Device("ssh://pi@kitchen"), file)
    with pytest.raises(InputError, match=r"unknown device 'kitchn'. Did you mean 'kitchen'\?"):
        find_device("kitchn", file)
    with pytest.raises(InputError, match="unknown device"):
        remove_device("kitchn", file)


@pytest.mark.parametrize(
    "name", ["", "-rf", "--all", "a\nb", "a\x1bb", " a", "a ", "a/b", "../a", ".", "ssh://x", "local"]
)
def test_names_that_could_be_taken_for_something_else_are_refused(file, name):
    with pytest.raises(InputError):
        add_device(name, Device("ssh://board"), file)
    with pytest.raises(InputError):
        check_name(name)
    assert not file.exists()


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
DEVICES = st.builds(
    Device,
    url=st.sampled_from(["ssh://board", "ssh://pi@board:22", "local"]),
    python=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    wheelhouse=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    accept_new_host_key=st.booleans(),
)


@given(st.dictionaries(NAMES, DEVICES, max_size=4), st.randoms())
def test_what_is_added_is_there_until_it_is_removed(tmp_path_factory, devices, random):
    file = tmp_path_factory.mktemp("inventory") / "devices.toml"
    file.write_text(COMMENTED, encoding="utf-8")
    expected = read_devices(file)
    for name, device in devices.items():
        try:
            check_name(name)
        except InputError:
            assume(False)
        assume(name not in expected)
        add_device(name, device, file)
        expected[name] = device
        assert read_devices(file) == expected
    for name in random.sample(sorted(expected), len(expected)):
        device, kept = remove_device(name, file)
        assert (device, kept) == (expected.pop(name), True)
        assert read_devices(file) == expected
    assert "# my boards" in file.read_text(encoding="utf-8")


def test_comments_of_the_other_boards_stay(file):
    file.parent.mkdir()
    file.write_text(COMMENTED)
    assert remove_device("kitchen", file)[1]
    assert file.read_text() == COMMENTED.replace(
        COMMENTED[COMMENTED.index("[kitchen]") : COMMENTED.index("# the one on")], ""
    )
    add_device("new one", Device("ssh://new"), file)
    assert file.read_text().endswith('# the end\n\n["new one"]\nurl = "ssh://new"\n')


@pytest.mark.parametrize(
    "text",
    [
        'kitchen = { url = "ssh://a" }\ndesk = { url = "ssh://b" }\n',
        'kitchen.url = "ssh://a"\ndesk.url = "ssh://b"\n',
        '[desk]\nurl = "ssh://b"\npython = """\n[kitchen]\n"""\n[kitchen]\nurl = "ssh://a"\n',
    ],
)
def test_a_file_that_lines_do_not_divide_is_written_anew(file, text):
    file.parent.mkdir()
    file.write_text(text)
    left = {name: device for name, device in read_devices(file).items() if name != "kitchen"}
    remove_device("kitchen", file)
    assert read_devices(file) == left


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[kitchen\n", "cannot be used"),
        ("[kitchen]\n", "url"),
        ('[kitchen]\nurl = "ssh://a"\npyhton = "x"\n', "pyhton"),
        ("[kitchen]\nurl = 3\n", "cannot be used"),
        ('[kitchen]\nurl = "pi@board"\n', "is not the address of a board"),
        ('["-rf"]\nurl = "ssh://a"\n', "is no name"),
    ],
)
def test_a_file_that_holds_no_boards_is_named_with_what_is_wrong(file, text, said):
    file.parent.mkdir()
    file.write_text(text)
    for use in (read_devices, lambda file: add_device("new", Device("ssh://a"), file)):
        with pytest.raises(InputError, match=said) as caught:
            use(file)
        assert str(file) in str(caught.value)
    assert file.read_text() == text


def test_a_file_that_is_none_is_an_input_error(file):
    file.mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_devices(file)
    (file.parent / "in_the_way").write_text("")
    with pytest.raises(InputError, match=r"cannot be (read|written)"):
        add_device("new", Device("ssh://a"), file.parent / "in_the_way" / "devices.toml")


def test_a_link_to_the_file_stays_a_link(file, tmp_path):
    add_device("one", Device("ssh://one"), tmp_path / "dotfiles" / "devices.toml")
    file.parent.mkdir()
    file.symlink_to(tmp_path / "dotfiles" / "devices.toml")
    add_device("two", Device("ssh://two"), file)
    assert file.is_symlink()
    assert list(read_devices(tmp_path / "dotfiles" / "devices.toml")) == ["one", "two"]


def test_a_name_is_taken_once(file):
    add_device("one", Device("ssh://one"), file)
    with pytest.raises(InputError, match=r"has a device 'one' already \(ssh://one\)"):
        add_device("one", Device("ssh://other"), file)


def test_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert inventory_file() == tmp_path / "edgeseq" / "devices.toml"
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "mine.toml"))
    assert inventory_file() == tmp_path / "mine.toml"
