"""Items of two reporting guidelines, and which fact of a model card fills each.

An item without a fact needs knowledge that no file of a run holds: it stays "not known", for the
authors to write. The words are short forms of the guidelines' own.

Source: A. S. Tejani and others, Checklist for Artificial Intelligence in Medical Imaging (CLAIM):
    2024 Update, Radiology: Artificial Intelligence 6 (2024). G. S. Collins and others, TRIPOD+AI
    statement, BMJ 385 (2024).
"""

from typing import NamedTuple


class Item(NamedTuple):
    """An item of a guideline.

    Attributes:
        number: in the guideline.
        fact: key of `card_facts.facts`; empty if no file can fill it.
    """

    number: str
    words: str
    fact: str = ""


CLAIM = (
    Item("1", "Study of AI methodology, with the category of technology", "technology"),
    Item("2", "Summary of design, methods, results and conclusions"),
    Item("3", "Background, intended use and role of the AI"),
    Item("4", "Aims, objectives and hypotheses"),
    Item("5", "Prospective or retrospective study"),
    Item("6", "Study goal"),
    Item("7", "Data sources", "source"),
    Item("8", "Inclusion and exclusion criteria", "eligibility"),
    Item("9", "Data preprocessing", "preprocessing"),
    Item("10", "Selection of data subsets", "subset"),
    Item("11", "De-identification methods"),
    Item("12", "How missing data were handled", "missing"),
    Item("13", "Image acquisition protocol"),
    Item("14", "Methods that gave the reference standard"),
    Item("15", "Rationale for the reference standard"),
    Item("16", "Source of the reference standard's annotations"),
    Item("17", "Annotation of the test set"),
    Item("18", "Variability within and between annotators"),
    Item("19", "Assignment of data to partitions", "partition"),
    Item("20", "Level at which partitions are disjoint", "disjoint"),
    Item("21", "Intended sample size"),
    Item("22", "Detailed description of the model", "model"),
    Item("23", "Software libraries, frameworks and packages", "software"),
    Item("24", "Initialization of the parameters", "initial"),
    Item("25", "Details of the training", "training"),
    Item("26", "Method of selecting the final model", "selection"),
    Item("27", "Ensembling techniques", "ensemble"),
    Item("28", "Metrics of performance", "metrics"),
    Item("29", "Measures of significance and uncertainty", "uncertainty"),
    Item("30", "Robustness or sensitivity analysis", "probes"),
    Item("31", "Methods for explainability or interpretability"),
    Item("32", "Evaluation on internal data", "internal"),
    Item("33", "Testing on external data", "external"),
    Item("34", "Registration of a clinical trial"),
    Item("35", "Numbers of patients or examinations included and excluded", "counts"),
    Item("36", "Demographic and clinical characteristics in each partition"),
    Item("37", "Performance and its uncertainty", "performance"),
    Item("38", "Estimates of diagnostic performance and their precision", "decisions"),
    Item("39", "Failure analysis of incorrect results", "failures"),
    Item("40", "Limitations", "limits"),
    Item("41", "Implications for practice, intended use, clinical role"),
    Item("42", "Full study protocol or further technical details"),
    Item("43", "Availability of software, model and data", "code"),
    Item("44", "Funding, and the role of the funders"),
)
TRIPOD = (
    Item("1", "Title: population, outcome, development or evaluation"),
    Item("2", "Abstract"),
    Item("3a", "Healthcare context and rationale"),
    Item("3b", "Target population, purpose and intended users"),
    Item("3c", "Known health inequalities"),
    Item("4", "Objectives"),
    Item("5a", "Sources of data", "source"),
    Item("5b", "Dates of the participants' data"),
    Item("6a", "Setting and centres"),
    Item("6b", "Eligibility criteria", "eligibility"),
    Item("6c", "Treatments received"),
    Item("7", "Data preparation", "preprocessing"),
    Item("8a", "Outcome and how it was assessed"),
    Item("8b", "Qualifications of the outcome's assessors"),
    Item("8c", "Blinding of the outcome's assessment"),
    Item("9a", "Choice of the predictors", "predictors"),
    Item("9b", "Definition of the predictors", "input"),
    Item("9c", "Qualifications of the predictors' assessors"),
    Item("10", "Sample size"),
    Item("11", "Missing data", "missing"),
    Item("12a", "Use of the data for development and evaluation", "partition"),
    Item("12b", "Handling of the predictors", "preprocessing"),
    Item("12c", "Type of model, building, tuning, internal validation", "training"),
    Item("12d", "Heterogeneity between clusters such as hospitals, methods", "clusters"),
    Item("12e", "Measures and plots of performance", "metrics"),
    Item("12f", "Model updating that the evaluation led to", "updating"),
    Item("12g", "How predictions were calculated", "output"),
    Item("13", "Class imbalance", "imbalance"),
    Item("14", "Approaches to fairness", "subgroups"),
    Item("15", "Model output and thresholds", "output"),
    Item("16", "Differences between development and evaluation", "difference"),
    Item("17", "Ethical approval"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Protocol"),
    Item("18d", "Registration"),
    Item("18e", "Data sharing"),
    Item("18f", "Code sharing", "code"),
    Item("19", "Patient and public involvement"),
    Item("20a", "Flow of participants", "counts"),
    Item("20b", "Characteristics of the participants"),
    Item("20c", "Distributions in development and evaluation data", "prevalence"),
    Item("21", "Participants and outcome events in each analysis", "counts"),
    Item("22", "Full model specification", "model"),
    Item("23a", "Performance with confidence intervals", "performance"),
    Item("23b", "Heterogeneity of performance between clusters", "clusters"),
    Item("24", "Results of model updating", "updating"),
    Item("25", "Interpretation, with fairness"),
    Item("26", "Limitations", "limits"),
    Item("27a", "Handling of poor or unavailable input", "poor_input"),
    Item("27b", "Interaction and expertise of users"),
    Item("27c", "Next steps for research"),
)
