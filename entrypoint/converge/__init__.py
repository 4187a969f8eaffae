"""State → Plan → disk → chasquid: the one way in which anything that is served changes.

`plan` is pure and says what must be; `apply` is the only writer; `reconcile` runs both and tells
chasquid; `pending` remembers what chasquid has not taken up; `routing` resolves addresses.
"""
