# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn==1.9.1", "pandas==3.1.1"]
# ///
"""The quickstart's model, fitted by hand on the same five rows: what the served model must agree with.

Reads feature values from the arguments and prints the predictions as a JSON list.
"""

import json
import sys

import pandas as pd
from sklearn.linear_model import LogisticRegression

rows = pd.DataFrame({"feature": [1, 2, 3, 4, 5], "target": [0, 1, 0, 1, 0]})
model = LogisticRegression(C=1).fit(rows[["feature"]], rows["target"])
asked = pd.DataFrame({"feature": [int(value) for value in sys.argv[1:]]})
print(json.dumps([int(answer) for answer in model.predict(asked)]))
