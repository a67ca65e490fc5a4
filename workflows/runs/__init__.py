"""One model of a run, filled by the local runner and from the Workflow of a cluster.

step.py       a step of a run and its attempts
status.py     a run: KAITO's columns, root cause, verdict and exit code
table.py      runs as tables, JSON or YAML
observer.py   the events of a run
view.py       events on a terminal: a live table, or plain lines
result.py     the end of a run: served answers, image, verdict
"""
