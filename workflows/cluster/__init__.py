"""Runs on a cluster: submitted, watched, stopped and approved, by the Kubernetes API alone or by an Argo server.

connect.py          which cluster, and in which of the two ways
workflows_api.py    what is asked of either: create, get, list, events, logs, shut down, supply
kubernetes_api.py   the way of a kubeconfig
argo_server.py      the way of ARGO_SERVER and ARGO_TOKEN
status.py           a Workflow document read into what people and programs ask: columns, steps, cause, exit code
watch.py, logs.py   changes and log lines, through lost connections
"""
