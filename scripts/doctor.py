"""Check this machine before a long run: one line for each part, and what to do about a problem.

It takes the keys of a run, and checks what they need. No line names a person, machine or path, so
that it can be pasted into a bug report. The exit code is 1 if there is a problem.

Examples:
  python scripts/doctor.py                              # for the default run, B4 on the phantom
  python scripts/doctor.py backbone=lite0 data=nih14 data.root=DIR
  python scripts/doctor.py trainer=gpu trainer.devices=4 json=true
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "doctor",
        "fluoroscope.doctor.doctor:main",
        "fluoroscope.config.doctor:check_doctor",
    )
