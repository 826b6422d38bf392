"""Print all cases as a Markdown table."""

from tests.diagnostics.truth import CASES

print("| case | formula | expected | measured | tolerance | ok |")
print("| --- | --- | --- | --- | --- | --- |")
for name, measure in CASES.items():
    truth = measure()
    numbers = f"{truth.expected:.6g} | {truth.measured:.6g} | {truth.tolerance:.2g}"
    verdict = "yes" if truth.holds else "**NO**"
    print(f"| {name} | {truth.formula} | {numbers}, {truth.because} | {verdict} |")
