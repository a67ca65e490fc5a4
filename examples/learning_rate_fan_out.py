"""Tune with several learning rates, each in a separate directory, and serve the adapter with the best evaluation.

    python examples/learning_rate_fan_out.py > fan_out.yaml
    argo submit fan_out.yaml -p learning-rates='["1e-4", "3e-4", "1e-3"]'

To run it locally, serve the example data (15 minutes on two CPU cores):

    python -m http.server 8765 --bind 127.0.0.1 --directory examples/data &
    argotune run fan_out.yaml

               .--> provision --.
    preflight -+                +--> search --> package --> rollout
               '--> download  --'
    search:     candidate (one a rate) --> promote
    candidate:  tune --> evaluate

The candidates share the work volume, which is ReadWriteOnce: its pods must run on one node, so the candidates run one
after another. Remove `parallelism` if the volume is ReadWriteMany.
"""

from pathlib import Path

from hera.workflows import DAG, Parameter
from hera.workflows import models as m

from workflows import Templates, load, pipeline, to_yaml


def output(task: str, name: str) -> Parameter:
    """Return an output of a DAG that forwards an output of one of its tasks."""
    return Parameter(name=name, value_from=m.ValueFrom(parameter=f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"))


plan = load(Path(__file__).with_name("smollm2_135m_qlora_parquet.yaml"))
steps = Templates(plan, candidates=True)
rates = Parameter(name="learning-rates", value='["5e-4", "2e-3", "8e-3"]', description="to be tried, a JSON list")

with pipeline(plan, arguments=[rates], without=["learning-rate"]) as workflow:
    with DAG(
        name="candidate",
        inputs=[Parameter(name="learning-rate"), Parameter(name="data-digest")],
        outputs=[
            output("tune", "adapter-digest"),
            output("evaluate", "base-loss"),
            output("evaluate", "adapter-loss"),
            output("evaluate", "verdict"),
        ],
    ) as candidate:
        rate, digest = candidate.get_parameter("learning-rate"), candidate.get_parameter("data-digest")
        tuned = steps.tune(arguments=[{"candidate": rate}, rate, digest])
        tuned >> steps.evaluate(arguments=[{"candidate": rate}, digest, tuned])

    with DAG(
        name="search",
        inputs=[Parameter(name="data-digest")],
        outputs=[output("promote", "adapter-digest")],
        parallelism=1,
        fail_fast=False,  # a diverging learning rate does not stop the others
    ) as search:
        tried = candidate(
            arguments=[{"learning-rate": "{{item}}"}, search.get_parameter("data-digest")],
            with_param="{{workflow.parameters.learning-rates}}",
        )
        tried.when_any_succeeded(
            steps.promote(arguments={"candidates": "{{tasks.candidate.outputs.parameters}}"}),
        )

    with DAG(name="main"):
        asked, ready, rows = steps.preflight(), steps.provision(), steps.download()
        best = search(arguments=[rows.get_parameter("data-digest")])
        packaged = steps.package(arguments=[rows, best])
        served = steps.rollout(arguments=[packaged])
        asked >> [ready, rows] >> best >> packaged >> served

if __name__ == "__main__":
    print(to_yaml(workflow), end="")
