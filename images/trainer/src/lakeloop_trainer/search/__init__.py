"""`spec.search`: better parameters, found by cross-validation on the training rows alone.

`core` runs the trials and knows no library: what scores a trial is given to it as `workers`. `sklearn_search` has what
is scikit-learn's own. Optuna is imported by a run that searches, and by no other.
"""
