import pytest

from learning import cli


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """The command `groundstate`, in a folder of its own: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = exit.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run
