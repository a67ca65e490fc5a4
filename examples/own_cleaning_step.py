"""Run a custom step, clean_rows.py, between download and tune.

    python examples/own_cleaning_step.py | argo submit -

To run it locally, serve the example data (6 minutes):

    python -m http.server 8765 --bind 127.0.0.1 --directory examples/data &
    python examples/own_cleaning_step.py > cleaned.yaml
    argotune run cleaned.yaml

               .--> download --> clean --.
    preflight -+                         +--> tune --> evaluate --(pass)--> package --> rollout
               '--> provision -----------'
"""

from pathlib import Path

from hera.workflows import DAG

from workflows import Templates, load, pipeline, to_yaml

HERE = Path(__file__).parent

plan = load(HERE / "smollm2_135m_qlora_parquet.yaml")
steps = Templates(plan, dataset="cleaned")
clean = steps.custom_step(
    "clean",
    plan.images.control,  # any image with the requirements of the program, here Python and pyarrow
    ["python", "-c", (HERE / "clean_rows.py").read_text(), "/mnt/work/dataset", "/mnt/work/cleaned"],
    outputs=["data-digest"],
)

with pipeline(plan) as workflow, DAG(name="main"):
    asked, ready, rows, cleaned = steps.preflight(), steps.provision(), steps.download(), clean()
    tuned = steps.tune(arguments=[cleaned])
    evaluated = steps.evaluate(arguments=[cleaned, tuned])
    passed = f"{evaluated.get_parameter('verdict').value} == pass"
    packaged = steps.package(arguments=[cleaned, tuned], when=passed)
    served = steps.rollout(arguments=[packaged])
    asked >> [ready, rows]
    rows >> cleaned
    [ready, cleaned] >> tuned >> evaluated >> packaged
    packaged.on_success(served)  # with `>>` the rollout would also run after a skipped package step

if __name__ == "__main__":
    print(to_yaml(workflow), end="")
