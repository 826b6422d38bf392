"""Compare runs: is ReLU destructive here, and would another activation do better?

Examples:
  python scripts/report.py runs=outputs/SWEEP                     # HTML, Markdown, CSV, PNG, SVG
  python scripts/report.py 'runs=[outputs/A,outputs/B]' reference=gelu out=comparison
  python scripts/report.py runs=outputs/SWEEP incomplete=true     # while some runs still go
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    check = "fluoroscope.config.report:check_report"
    command(__doc__, "report", "fluoroscope.report:main", check)
