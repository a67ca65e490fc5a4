"""Submit, watch, stop and approve runs on a cluster.

connect.py          selection of the cluster by flags and environment
workflows_api.py    the interface: create, get, list, watch, logs, shut down, set outputs
kubernetes_api.py   implementation with the Kubernetes API and a kubeconfig
argo_server.py      implementation with an Argo server (ARGO_SERVER, ARGO_TOKEN)
read_run.py         a Workflow document read into ``workflows.runs.status.RunStatus``
watch.py, logs.py   changes and log lines, across lost connections
failures.py         failed requests as errors with a fix
"""
