"""Make oncall.parquet: questions to the on-call assistant of a Kubernetes platform team, answered in runbook style.

    python examples/data/make_oncall.py [FILE]

Every answer has the same four lines (Cause, Check, Fix, Runbook), so that one sees at a glance whether a model learned
it. Names and wording are chosen by digests, not by a random generator, so that every Python makes the same rows; with
the same pyarrow the file is the same byte for byte.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FILE = Path(__file__).parent / "oncall.parquet"
ROWS_EACH = 15

NAMES = {
    "app": [
        "checkout",
        "cart",
        "search",
        "catalog",
        "payments",
        "invoices",
        "ledger",
        "mailer",
        "login",
        "profile",
        "gateway",
        "orders",
        "stock",
        "pricing",
        "reports",
        "billing",
        "webhooks",
        "ratings",
        "loyalty",
        "uploads",
        "exporter",
        "scheduler",
        "notifier",
        "tracker",
    ],
    "ns": ["shop", "prod", "staging", "team-a", "team-b", "finance", "data", "web", "core", "edge", "media", "labs"],
    "model": [
        "chat-llm",
        "code-llm",
        "phi-serving",
        "llama-serving",
        "mistral-serving",
        "embedder",
        "reranker",
        "summarizer",
    ],
    "node": [f"{pool}-{number}" for pool in ("gpu", "sys", "cpu", "spot") for number in range(1, 9)],
    "wf": [f"{what}-{number}" for what in ("tune", "etl", "train", "build", "nightly") for number in range(3, 9)],
}
FRAMES = (
    "{}",
    "{} What now?",
    "On call: {}",
    "{} How do I fix it?",
    "Pager: {}",
    "{} Any idea?",
    "{} Please help.",
    "Alert. {}",
)


@dataclass(frozen=True)
class Symptom:
    """What is asked in several wordings, and the lines of the answer."""

    wordings: tuple[str, str, str, str]
    cause: str
    check: str
    fix: str


SYMPTOMS = (
    Symptom(
        (
            "{app} in {ns} is in CrashLoopBackOff.",
            "Pods of {app} ({ns}) restart over and over.",
            "{app} keeps crashing in namespace {ns}.",
            "CrashLoopBackOff on {ns}/{app}.",
        ),
        "the container exits soon after it starts.",
        "kubectl logs deploy/{app} -n {ns} --previous",
        "mend the error in the last log lines and redeploy.",
    ),
    Symptom(
        (
            "{app} in {ns} shows ImagePullBackOff.",
            "The image of {app} cannot be pulled in {ns}.",
            "ErrImagePull for {app}, namespace {ns}.",
            "ImagePullBackOff on {ns}/{app} since the last deploy.",
        ),
        "the image name, its tag or the pull secret is wrong.",
        "kubectl describe pod -l app={app} -n {ns}",
        "correct the tag or add the imagePullSecret.",
    ),
    Symptom(
        (
            "{app} in {ns} was OOMKilled.",
            "Container of {app} ({ns}) ends with exit code 137, OOMKilled.",
            "{app} is killed for memory in {ns}.",
            "OOMKilled again on {ns}/{app}.",
        ),
        "the container uses more memory than its limit.",
        "kubectl top pod -l app={app} -n {ns} --containers",
        "raise the memory limit or mend the leak.",
    ),
    Symptom(
        (
            "{model} in {ns} is Pending: untolerated taint nvidia.com/gpu.",
            "The GPU pod {model} ({ns}) is not scheduled because of a taint.",
            "{model} stays Pending in {ns}, nodes had a GPU taint.",
            "Scheduler says untolerated taint for {ns}/{model}.",
        ),
        "the GPU nodes are tainted and the pod has no toleration.",
        "kubectl describe pod -l app={model} -n {ns}",
        "add a toleration for nvidia.com/gpu.",
    ),
    Symptom(
        (
            "{model} in {ns} is Pending: insufficient nvidia.com/gpu.",
            "No free GPU for {model} in {ns}.",
            "{model} ({ns}) waits for a GPU.",
            "Insufficient nvidia.com/gpu for {ns}/{model}.",
        ),
        "no node has a free GPU.",
        "kubectl describe nodes | grep nvidia.com/gpu",
        "add a GPU node or stop a pod that holds one.",
    ),
    Symptom(
        (
            "{app} in {ns} is Pending: insufficient cpu.",
            "No node has enough CPU for {app} in {ns}.",
            "{app} ({ns}) cannot be scheduled, insufficient cpu.",
            "Scheduler reports insufficient cpu for {ns}/{app}.",
        ),
        "the CPU requests fit on no node.",
        "kubectl describe nodes | grep -A5 Allocated",
        "lower the CPU requests or add a node.",
    ),
    Symptom(
        (
            "PVC {app}-data in {ns} is Pending.",
            "The volume claim of {app} ({ns}) is never bound.",
            "{app} waits for an unbound PVC in {ns}.",
            "Claim {ns}/{app}-data stuck in Pending.",
        ),
        "no storage class can provision the claim.",
        "kubectl describe pvc {app}-data -n {ns}",
        "recreate the claim with an existing storageClassName.",
    ),
    Symptom(
        (
            "Multi-Attach error for the volume of {app} in {ns}.",
            "{app} ({ns}) cannot attach its volume, it is used on another node.",
            "Volume of {app} in {ns} is still attached elsewhere.",
            "FailedAttachVolume, Multi-Attach, on {ns}/{app}.",
        ),
        "a ReadWriteOnce volume is still attached to another node.",
        "kubectl get volumeattachments",
        "delete the old pod so that the volume detaches.",
    ),
    Symptom(
        (
            "{app} in {ns} cannot resolve service names.",
            "DNS lookups fail in {ns}, seen from {app}.",
            "{app} ({ns}) logs: temporary failure in name resolution.",
            "No such host errors from {ns}/{app}.",
        ),
        "CoreDNS is down or overloaded.",
        "kubectl get pods -n kube-system -l k8s-app=kube-dns",
        "restart CoreDNS or give it more replicas.",
    ),
    Symptom(
        (
            "The TLS certificate of {app} in {ns} has expired.",
            "Browsers warn of an expired certificate on {app} ({ns}).",
            "x509: certificate has expired, {app} in {ns}.",
            "Certificate {ns}/{app}-tls is past its date.",
        ),
        "cert-manager could not renew the certificate.",
        "kubectl describe certificate {app}-tls -n {ns}",
        "repair the issuer so that it is renewed.",
    ),
    Symptom(
        (
            "The HPA of {app} in {ns} does not scale.",
            "HPA {app} ({ns}) shows unknown targets.",
            "{app} stays at one replica under load in {ns}.",
            "Autoscaling of {ns}/{app} does nothing.",
        ),
        "the autoscaler gets no metrics for the pods.",
        "kubectl describe hpa {app} -n {ns}",
        "set CPU requests and repair metrics-server.",
    ),
    Symptom(
        (
            "Node {node} is NotReady.",
            "{node} went NotReady a minute ago.",
            "The node {node} stopped reporting.",
            "NotReady on node {node}.",
        ),
        "the kubelet of the node stopped reporting.",
        "kubectl describe node {node}",
        "restart its kubelet or replace the node.",
    ),
    Symptom(
        (
            "Workflow {wf} in {ns} waits for a mutex.",
            "Argo workflow {wf} ({ns}) is stuck on a lock.",
            "{wf} hangs in {ns}: waiting for mutex.",
            "Mutex wait never ends on workflow {ns}/{wf}.",
        ),
        "another workflow holds the mutex.",
        "kubectl get wf {wf} -n {ns} -o yaml",
        "let the holder finish or stop it.",
    ),
    Symptom(
        (
            "vLLM of {model} in {ns} fails with CUDA out of memory.",
            "{model} ({ns}) has no memory for the KV cache at start.",
            "torch.OutOfMemoryError in {model}, namespace {ns}.",
            "vLLM runs out of GPU memory on {ns}/{model}.",
        ),
        "the weights and the KV cache do not fit on the GPU.",
        "kubectl logs deploy/{model} -n {ns}",
        "lower --max-model-len or use a larger GPU.",
    ),
    Symptom(
        (
            "New pods of {app} are refused in {ns}: exceeded quota.",
            "Quota exceeded in {ns} when deploying {app}.",
            "{app} ({ns}) cannot scale, forbidden: exceeded quota.",
            "Namespace {ns} has no quota left for {app}.",
        ),
        "the quota of the namespace is used up.",
        "kubectl describe quota -n {ns}",
        "delete unused pods or raise the quota.",
    ),
    Symptom(
        (
            "Pods are evicted from {node}: disk pressure.",
            "{node} reports DiskPressure.",
            "Evictions on node {node}, ephemeral storage is low.",
            "The disk of {node} is nearly full.",
        ),
        "the node runs out of disk.",
        "kubectl describe node {node}",
        "remove old images and logs or enlarge the disk.",
    ),
    Symptom(
        (
            "Service {app} in {ns} has no endpoints.",
            "Connection refused by service {app} ({ns}), the endpoints are empty.",
            "No endpoints available for {app} in {ns}.",
            "The endpoint list of {ns}/{app} is empty.",
        ),
        "the selector matches no ready pod.",
        "kubectl get endpointslices -n {ns} -l kubernetes.io/service-name={app}",
        "make the selector match the pod labels.",
    ),
    Symptom(
        (
            "The ingress of {app} in {ns} answers 502.",
            "502 Bad Gateway on {app} ({ns}).",
            "Users of {app} get bad gateway, namespace {ns}.",
            "Ingress {ns}/{app} returns 502.",
        ),
        "the ingress reaches no healthy port of the backend.",
        "kubectl describe ingress {app} -n {ns}",
        "correct the service port or mend the pods.",
    ),
    Symptom(
        (
            "The readiness probe of {app} in {ns} fails.",
            "{app} ({ns}) runs but never becomes ready.",
            "{app} stays 0/1 ready in {ns}.",
            "Readiness probe failed on {ns}/{app}.",
        ),
        "the probe asks a wrong path or too early.",
        "kubectl describe pod -l app={app} -n {ns}",
        "correct its path or raise initialDelaySeconds.",
    ),
    Symptom(
        (
            "The liveness probe kills {app} in {ns} under load.",
            "{app} ({ns}) is restarted by its liveness probe.",
            "Liveness probe timed out, {app} in {ns}.",
            "Liveness restarts on {ns}/{app}.",
        ),
        "the app answers slower than the probe allows.",
        "kubectl get events -n {ns} | grep Liveness",
        "raise timeoutSeconds or add a startup probe.",
    ),
    Symptom(
        (
            "{app} in {ns} shows CreateContainerConfigError.",
            "{app} ({ns}) does not start: secret not found.",
            "configmap not found for {app} in {ns}.",
            "CreateContainerConfigError on {ns}/{app}.",
        ),
        "a ConfigMap or Secret that it names is missing.",
        "kubectl get configmap,secret -n {ns}",
        "create it or correct the name.",
    ),
    Symptom(
        (
            "{app} in {ns} gets 403 Forbidden from the API server.",
            "The service account of {app} ({ns}) cannot list pods.",
            "RBAC denies {app} in {ns}.",
            "Forbidden: cannot get resource, from {ns}/{app}.",
        ),
        "the service account lacks a permission.",
        "kubectl auth can-i --list -n {ns} --as=system:serviceaccount:{ns}:{app}",
        "bind a role with the missing verb.",
    ),
    Symptom(
        (
            "Namespace {ns} is stuck in Terminating.",
            "{ns} cannot be deleted, it stays Terminating.",
            "Deleting the namespace {ns} never ends.",
            "The finalizers of namespace {ns} do not finish.",
        ),
        "a finalizer waits for resources that remain.",
        "kubectl get ns {ns} -o yaml",
        "delete the resources that its conditions name.",
    ),
    Symptom(
        (
            "A pod of {app} in {ns} is stuck Terminating.",
            "{app} ({ns}) has a pod that does not go away.",
            "Old pod of {app} hangs in Terminating, namespace {ns}.",
            "Terminating for an hour: {ns}/{app}.",
        ),
        "its node is gone or a finalizer is left.",
        "kubectl get pod -l app={app} -n {ns} -o wide",
        "if the node is gone, delete the pod with --force.",
    ),
    Symptom(
        (
            "The rollout of {app} in {ns} is stuck.",
            "ProgressDeadlineExceeded for {app} ({ns}).",
            "Deployment {app} does not finish its update in {ns}.",
            "The new version of {ns}/{app} never becomes available.",
        ),
        "the new pods do not become ready in time.",
        "kubectl rollout status deploy/{app} -n {ns}",
        "run kubectl rollout undo deploy/{app} -n {ns}.",
    ),
    Symptom(
        (
            "Helm says another operation is in progress for {app} in {ns}.",
            "Release {app} ({ns}) is stuck in pending-upgrade.",
            "helm upgrade of {app} is blocked in {ns}.",
            "pending-upgrade on Helm release {ns}/{app}.",
        ),
        "an earlier Helm upgrade was interrupted.",
        "kubectl get secret -n {ns} -l owner=helm,name={app}",
        "run helm rollback {app} -n {ns}.",
    ),
    Symptom(
        (
            "Creating {app} in {ns} fails: failed calling webhook.",
            "An admission webhook times out when I deploy {app} to {ns}.",
            "failed calling webhook, context deadline exceeded, {app} in {ns}.",
            "Webhook timeout on apply of {ns}/{app}.",
        ),
        "the pods behind the admission webhook do not answer.",
        "kubectl get validatingwebhookconfigurations",
        "restart the pods that serve the webhook.",
    ),
    Symptom(
        (
            "Calls to {app} in {ns} time out since a NetworkPolicy came.",
            "{app} ({ns}) is unreachable from other namespaces, connection timed out.",
            "A NetworkPolicy seems to block {app} in {ns}.",
            "Traffic to {ns}/{app} is dropped.",
        ),
        "a NetworkPolicy does not allow the caller.",
        "kubectl get networkpolicy -n {ns}",
        "allow the caller's labels in an ingress rule.",
    ),
    Symptom(
        (
            "Service {app} in {ns} has no external IP.",
            "EXTERNAL-IP of {app} ({ns}) stays pending.",
            "The load balancer of {app} is not created in {ns}.",
            "LoadBalancer pending on {ns}/{app}.",
        ),
        "the cloud could not create the load balancer.",
        "kubectl describe svc {app} -n {ns}",
        "correct its annotations or raise the IP quota.",
    ),
    Symptom(
        (
            "CronJob {app} in {ns} did not run.",
            "The nightly job {app} ({ns}) was missed.",
            "No new Job from cronjob {app} in {ns}.",
            "Missed start time for cronjob {ns}/{app}.",
        ),
        "it is suspended or missed its start deadline.",
        "kubectl describe cronjob {app} -n {ns}",
        "unsuspend it or raise startingDeadlineSeconds.",
    ),
    Symptom(
        (
            "Job {app} in {ns} failed: BackoffLimitExceeded.",
            "The job {app} ({ns}) gave up after its retries.",
            "Job {app} reached its backoff limit in {ns}.",
            "BackoffLimitExceeded on job {ns}/{app}.",
        ),
        "the pods of the job failed too often.",
        "kubectl logs job/{app} -n {ns}",
        "mend the error, delete the job and create it again.",
    ),
    Symptom(
        (
            "Node {node} shows no GPUs.",
            "nvidia.com/gpu is 0 on {node}.",
            "Kubernetes does not see the GPU of {node}.",
            "The allocatable GPU count of {node} is zero.",
        ),
        "the NVIDIA device plugin does not run there.",
        "kubectl get pods -n gpu-operator -o wide",
        "restart the device plugin on the node.",
    ),
    Symptom(
        (
            "Xid 79 on {node}: GPU has fallen off the bus.",
            "{node} logs Xid errors.",
            "GPU fell off the bus on node {node}.",
            "A GPU of {node} is lost, Xid 79.",
        ),
        "the GPU hardware has failed.",
        "kubectl get events -A | grep {node}",
        "cordon and drain the node, then replace it.",
    ),
    Symptom(
        (
            "Requests to {model} in {ns} wait long for the first token.",
            "{model} ({ns}) is slow, vLLM reports many waiting requests.",
            "High time to first token on {model}, namespace {ns}.",
            "The vLLM queue grows on {ns}/{model}.",
        ),
        "requests queue because the KV cache is full.",
        "kubectl logs deploy/{model} -n {ns} | grep Waiting",
        "add a replica or lower --max-model-len.",
    ),
    Symptom(
        (
            "{model} in {ns} cannot download its weights: 401.",
            "Gated repo error at the start of {model} ({ns}).",
            "The model hub refuses {model} in {ns}, unauthorized.",
            "401 from the model hub for {ns}/{model}.",
        ),
        "the hub token is missing or has no access.",
        "kubectl get secret hf-token -n {ns}",
        "accept the model's licence and set HF_TOKEN.",
    ),
    Symptom(
        (
            "{app} in {ns} is Pending: volume node affinity conflict.",
            "The volume of {app} ({ns}) is in another zone.",
            "{app} cannot be scheduled in {ns}, node affinity conflict of its volume.",
            "Volume node affinity conflict on {ns}/{app}.",
        ),
        "the volume is in a zone without a fitting node.",
        "kubectl describe pvc {app}-data -n {ns}",
        "add a node in the zone of the volume.",
    ),
    Symptom(
        (
            "Workflow {wf} in {ns} fails: workflowtaskresults is forbidden.",
            "Argo says {wf} ({ns}) cannot create workflowtaskresults.",
            "{wf} errors in {ns}, the executor is forbidden to report.",
            "workflowtaskresults forbidden on {ns}/{wf}.",
        ),
        "the executor's service account lacks a role.",
        "kubectl get rolebinding -n {ns}",
        "grant create and patch on workflowtaskresults.",
    ),
    Symptom(
        (
            "Draining {node} hangs on {app} in {ns}.",
            "Cannot evict {app} ({ns}): it would violate the disruption budget.",
            "kubectl drain {node} is blocked by the PDB of {app} in {ns}.",
            "The PDB of {ns}/{app} blocks a drain.",
        ),
        "the disruption budget allows no eviction now.",
        "kubectl get pdb -n {ns}",
        "add a replica or relax the budget.",
    ),
    Symptom(
        (
            "{app} in {ns} hangs in Init:0/1.",
            "The init container of {app} ({ns}) does not finish.",
            "{app} waits for its init container in {ns}.",
            "Init:0/1 for ten minutes on {ns}/{app}.",
        ),
        "the init container waits for something not there.",
        "kubectl logs deploy/{app} -n {ns} --all-containers",
        "start what it waits for or correct its address.",
    ),
    Symptom(
        (
            "{app} in {ns} is slow and its CPU is throttled.",
            "CPU throttling alert for {app} ({ns}).",
            "Latency of {app} rises in {ns}, CPU is at its limit.",
            "Throttled CPU on {ns}/{app}.",
        ),
        "the container is held at its CPU limit.",
        "kubectl top pod -l app={app} -n {ns}",
        "raise the CPU limit or remove it.",
    ),
)


def rows() -> list[list[dict[str, str]]]:
    """All rows as OpenAI messages, no question twice, in an order that mixes the symptoms."""
    found: dict[str, str] = {}
    for number, symptom in enumerate(SYMPTOMS, start=101):
        made = 0
        attempt = 0
        while made < ROWS_EACH:
            names = {kind: _pick(values, f"{number}/{attempt}/{kind}") for kind, values in NAMES.items()}
            wording = symptom.wordings[made % len(symptom.wordings)]
            frame = _pick(FRAMES, f"{number}/{attempt}/frame")
            question = frame.format(wording.format(**names))
            attempt += 1
            if question not in found:
                found[question] = _answer(symptom, number).format(**names)
                made += 1
    order = sorted(found, key=lambda question: sha256(question.encode()).digest())
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": found[question]}]
        for question in order
    ]


def _answer(symptom: Symptom, number: int) -> str:
    return f"Cause: {symptom.cause}\nCheck: {symptom.check}\nFix: {symptom.fix}\nRunbook: RB-{number}"


def _pick(options: Sequence[str], key: str) -> str:
    return options[int.from_bytes(sha256(key.encode()).digest()[:8], "big") % len(options)]


def write(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    table = pa.table({"messages": pa.array(rows(), pa.list_(message))})
    pq.write_table(table, file, compression="zstd", compression_level=19)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
