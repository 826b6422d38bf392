"""What is written of an error cannot name a person: no value of a message is copied."""

import errno
import pickle
import re

import pytest

from fluoroscope.choices import Range
from fluoroscope.errors import InputError, LoadingError, advise_resume, check_choice
from fluoroscope.launch.error_template import error_template
from fluoroscope.launch.run_status import failure, mark_failed
from fluoroscope.run import run_folder
from fluoroscope.run.resume import load_checkpoint
from fluoroscope.sources import existing_root

# In forms that no pattern for paths would find.
NAMES = [
    "Doe, Jane",
    "Doe, Jane.final version",
    'O\'Brien "Bob"',
    "Müller-Lüdenscheidt",
    "4711",
    "山田 太郎",
    "jane\nDoe",
    "{cfg}%s",
    "a (b); c: d",
]


def refusal(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_no_message_of_this_program_passes_a_name_on(name, tmp_path):
    place = tmp_path / name
    place.mkdir()
    (place / "result.json").write_text("{" + name)
    errors = [
        refusal(check_choice, "data.splits", name, ["given", "own"]),
        refusal(run_folder.read_json, place / "result.json"),
        refusal(run_folder.claim, place),
        refusal(load_checkpoint, place / "best.ckpt"),
        refusal(existing_root, place / name),
        refusal(Range(0, 1).check, "head.dropout", name),
    ]
    for error in errors:
        told = error_template(error)
        assert name not in told
        assert str(tmp_path) not in told
        assert len(re.sub("<[^>]*>", "", told)) > 10, told


def test_the_fixed_words_keys_and_choices_stay():
    error = refusal(check_choice, "data.splits", "Jane", ["given", "own"])
    told = "data.splits must be one of <...>; got <...>"
    assert error_template(error) == told
    error = refusal(Range(0, 1).check, "head.dropout", 4711)
    assert error_template(error) == "head.dropout must be <...>; got <...>"


def test_of_the_system_s_words_none_is_lost(tmp_path):
    def full():
        with advise_resume(tmp_path / "Doe, Jane"):
            raise OSError(errno.ENOSPC, "No space left on device", "/data/Doe, Jane/1.png")

    assert error_template(refusal(full)) == (
        "cannot write <place> (No space left on device); <remedy> and <...>"
    )


def test_the_cause_is_told_by_its_own_words(tmp_path):
    def load_and_advise():
        with advise_resume(tmp_path):
            try:
                load_checkpoint(tmp_path / "Jane.ckpt")
            except InputError as error:
                raise LoadingError(str(error)) from None

    told = error_template(refusal(load_and_advise))
    assert "Jane" not in told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [RuntimeError, KeyError, OSError, UnicodeDecodeError, InputError])
def test_of_any_other_error_only_the_type_and_the_place_are_told(kind, name):
    arguments = ("utf-8", name.encode(), 0, 1, name) if kind is UnicodeDecodeError else (name,)
    assert error_template(kind(*arguments)) == kind.__name__


def test_the_place_is_in_this_program_and_not_on_this_machine(tmp_path):
    try:
        run_folder.write_text(tmp_path / "Jane" / "x", "")
    except OSError as error:
        told = error_template(error)
    place = r"run/run_folder\.py, line \d+|atomic_write\.py, line \d+"
    assert re.fullmatch(rf"FileNotFoundError \(No such file or directory\) in ({place})", told)


def test_an_error_of_another_process_keeps_where_it_was_made():
    error = refusal(check_choice, "data.splits", "Jane", ["given"])
    again = pickle.loads(pickle.dumps(error))
    assert error_template(again) == error_template(error)


def test_the_file_of_a_failed_run_holds_the_template_alone(tmp_path):
    mark_failed(tmp_path, refusal(check_choice, "data.splits", "Jane", ["given"]))
    assert failure(tmp_path) == {
        "error": "data.splits must be one of <...>; got <...>",
        "exit_code": 2,
    }
