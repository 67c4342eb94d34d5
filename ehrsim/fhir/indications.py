"""What drugs are given for, by ingredient: so that an order names the patient's condition as its reason.

An ingredient stands for all products whose name has it. A condition is one whose ICD-10-CM code begins with a prefix,
or whose name has one of the words. Labelled uses only, and only common drugs: an order without a line here, or of a
patient without such a condition, names no reason.
"""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.fhir.shapes import Coded


class Indication(NamedTuple):
    """Ingredients, and the conditions they are given for."""

    ingredients: tuple[str, ...]
    icd10: tuple[str, ...]
    words: tuple[str, ...]


_DIABETES = (
    ("E11", "E13"),
    ("type 2 diabetes", "diabetes mellitus type 2", "diabetes mellitus type ii", "type ii diabetes"),
)
_HYPERTENSION = (("I10", "I11", "I12", "I13"), ("hypertension", "hypertensive"))
_LIPIDS = (("E78", "I25", "I63", "I21"), ("hyperlipidemia", "hypercholesterolemia", "coronary", "hypertriglyceridemia"))
_AIRWAYS = (("J45", "J44"), ("asthma", "chronic obstructive", "emphysema", "bronchitis"))
_MOOD = (("F32", "F33", "F41", "F34"), ("depress", "anxiety"))
_INFECTIONS = (
    ("J01", "J02", "J13", "J15", "J18", "H66", "N39", "L03", "J20"),
    ("sinusitis", "pharyngitis", "otitis", "pneumonia", "cystitis", "urinary tract", "cellulitis", "bacterial"),
)
_PAIN = (
    ("M", "R51", "R52", "S"),
    (
        "pain",
        "arthritis",
        "sprain",
        "fracture",
        "injury",
        "fibromyalgia",
        "headache",
        "migraine",
        "laceration",
        "whiplash",
    ),
)

INDICATIONS: tuple[Indication, ...] = (
    Indication(("insulin",), ("E10", "E11", "E13", "O24"), ("diabetes",)),
    Indication(("metformin", "glipizide", "gliptin", "gliflozin", "glutide"), *_DIABETES),
    Indication(("lisinopril", "losartan", "valsartan", "enalapril", "ramipril", "benazepril"), *_HYPERTENSION),
    Indication(("amlodipine", "hydrochlorothiazide", "chlorthalidone"), *_HYPERTENSION),
    Indication(
        ("metoprolol", "carvedilol", "atenolol", "bisoprolol"),
        ("I10", "I11", "I20", "I21", "I25", "I48", "I50"),
        ("hypertension", "heart failure", "fibrillation", "coronary", "myocardial", "angina"),
    ),
    Indication(("vastatin", "ezetimibe", "fenofibrate"), *_LIPIDS),
    Indication(
        ("furosemide", "spironolactone", "torsemide", "sacubitril"),
        ("I50", "I11", "R60", "K74"),
        ("heart failure", "edema", "cirrhosis"),
    ),
    Indication(
        ("aspirin", "clopidogrel", "nitroglycerin"),
        ("I20", "I21", "I24", "I25", "I63", "I73", "G45"),
        ("coronary", "myocardial", "stroke", "angina", "ischemic", "peripheral arter"),
    ),
    Indication(
        ("warfarin", "apixaban", "rivaroxaban", "dabigatran"),
        ("I48", "I26", "I82"),
        ("fibrillation", "embolism", "thrombosis"),
    ),
    Indication(("levothyroxine",), ("E03", "E89.0"), ("hypothyroidism",)),
    Indication(("albuterol", "fluticasone", "budesonide", "tiotropium", "montelukast", "salmeterol"), *_AIRWAYS),
    Indication(("sertraline", "fluoxetine", "escitalopram", "citalopram", "bupropion", "venlafaxine"), *_MOOD),
    Indication(
        ("amoxicillin", "azithromycin", "penicillin", "cephalexin", "nitrofurantoin", "ciprofloxacin"), *_INFECTIONS
    ),
    Indication(("ibuprofen", "naproxen", "acetaminophen", "tramadol", "oxycodone", "hydrocodone"), *_PAIN),
    Indication(("omeprazole", "pantoprazole", "famotidine"), ("K21", "K25", "K29"), ("reflux", "ulcer", "gastritis")),
    Indication(("alendronat", "zoledronic"), ("M80", "M81"), ("osteoporosis",)),
    Indication(("allopurinol", "colchicine"), ("M10", "M1A"), ("gout",)),
    Indication(("ferrous", "iron sucrose"), ("D50",), ("iron deficiency", "anemia")),
    Indication(("donepezil", "memantine", "galantamine"), ("G30", "F01", "F03"), ("alzheimer", "dementia")),
    Indication(("levodopa",), ("G20",), ("parkinson",)),
    Indication(("gabapentin", "pregabalin"), ("E11.4", "G62", "M79"), ("neuropathy", "neuralgia", "fibromyalgia")),
    Indication(
        ("diphenhydramine", "loratadine", "cetirizine"), ("J30", "L50", "T78"), ("allerg", "rhinitis", "urticaria")
    ),
    Indication(("carbamazepine", "levetiracetam", "valpro", "lamotrigine"), ("G40", "R56"), ("epilep", "seizure")),
)


def uses(drug: Coded) -> frozenset[int]:
    """The numbers of the indications that a drug has."""
    name = drug.display.casefold()
    return frozenset(
        number for number, one in enumerate(INDICATIONS) if any(ingredient in name for ingredient in one.ingredients)
    )


def asked_for(condition: Coded) -> frozenset[int]:
    """The numbers of the indications that a condition is one of."""
    if condition.system == "ICD10CM":
        return frozenset(number for number, one in enumerate(INDICATIONS) if condition.value.startswith(one.icd10))
    called = condition.display.casefold()
    return frozenset(number for number, one in enumerate(INDICATIONS) if any(word in called for word in one.words))
