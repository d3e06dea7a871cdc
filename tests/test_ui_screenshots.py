"""The command line of the screenshots: `python -m ui.screenshots`."""

import pytest

from ui.screenshots import SCHEMES, SIZES, TABS, main


def test_help_names_a_file_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and f"{TABS[0]}-{SCHEMES[0]}-{next(iter(SIZES))}.jpg" in capsys.readouterr().out


def test_without_a_folder_the_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2 and "FOLDER" in capsys.readouterr().err
