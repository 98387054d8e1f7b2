"""`inlay generate`: the answers of the benchmark for the same rows, whatever stopped it on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import answering
import pytest
import tiny
import yaml
from answering import by_peft, predictions
from tiny_runs import inlay

import inlay as package
from inlay.tuner.problems import AnswerNo, Interrupted, RequestError
from inlay.tuner.serve import generate as module

TASKS = ("dialogue", "summarization", "classification")


@pytest.fixture(scope="module")
def world(tiny_models, tmp_path_factory):
    """A folder with a run of each of the tasks."""
    folder = tmp_path_factory.mktemp("world")
    return answering.made(folder, tiny_models("llama"), *TASKS)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def asked(*options: object, target: str = "dialogue", rows: str | None = None, output: str = "out.jsonl"):
    return inlay("generate", target, "--input", rows or f"{target}-test.jsonl", "--output", output, *options)


@pytest.mark.parametrize("task", TASKS)
def test_the_rows_of_the_benchmark_get_its_answers(task, inside):
    code, out, err = asked(target=task)
    assert (code, out) == (0, "out.jsonl\n"), err
    expected = [
        {"line": n, "id": row["id"], "prediction": row["prediction"], "finished": row["finished"]}
        for n, row in enumerate(predictions(inside / task), start=1)
    ]
    assert read(inside / "out.jsonl") == expected
    assert len({row["prediction"] for row in expected}) > 1
    assert not (inside / "out.jsonl.partial").exists()


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_so_they_do_where_an_adapter_prepends(method, tiny_models, tmp_path, monkeypatch):
    answering.made(tmp_path, tiny_models("llama"), "summarization", method=method)
    monkeypatch.chdir(tmp_path)
    code, _, err = asked(target="summarization")
    assert code == 0, err
    found = [row["prediction"] for row in read(tmp_path / "out.jsonl")]
    assert found == [row["prediction"] for row in predictions(tmp_path / "summarization")]


@pytest.mark.parametrize("bits", [4, 16])
def test_so_they_do_where_batches_move_the_numbers(bits, tiny_models, tmp_path, monkeypatch):
    answering.made(tmp_path, tiny_models("llama"), "dialogue", bits=bits, decoding={"max_new_tokens": 24})
    monkeypatch.chdir(tmp_path)
    code, _, err = asked()
    assert code == 0, err
    found = [row["prediction"] for row in read(tmp_path / "out.jsonl")]
    assert found == [row["prediction"] for row in predictions(tmp_path / "dialogue")]


def test_so_they_do_with_draws_cut_documents_and_every_turn(tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answering.made(
        tmp_path,
        tiny_models("llama"),
        "dialogue",
        decoding={"max_new_tokens": 6, "do_sample": True, "temperature": 2.0},
        turns="all",
    )
    turns = [{"role": role, "content": f"The lamp {n}."} for n in range(3) for role in ("user", "assistant")]
    rows = [*read(tmp_path / "dialogue-test.jsonl"), {"messages": turns}]
    rows.append({"messages": [*turns, {"role": "user", "content": "x " * 90}, {"role": "assistant", "content": "y"}]})
    write(tmp_path / "dialogue-test.jsonl", rows)
    code, _, err = inlay("run", "dialogue-lora.yaml", "--output", "cut", "--set", "task.truncate=true")
    assert code == 0, err
    code, _, err = asked(target="cut", rows="dialogue-test.jsonl")
    assert code == 0, err
    found = [(row["id"], row["prediction"]) for row in read(tmp_path / "out.jsonl")]
    assert found == [(row["id"], row["prediction"]) for row in predictions(tmp_path / "cut")]
    assert len(found) > len(rows)


def test_rows_without_an_answer_are_asked_alike(inside):
    expected = [row["prediction"] for row in predictions(inside / "summarization")]
    rows = read(inside / "summarization-test.jsonl")
    write(inside / "bare.jsonl", [{"document": row["document"], "note": 1} for row in rows])
    (inside / "bare.csv").write_text("document\n" + "".join(f'"{row["document"]}"\n' for row in rows))
    write(inside / "whole.jsonl", [{"prompt": f"{row['document']}\n\nSummary:"} for row in rows])
    for name in ("bare.jsonl", "bare.csv", "whole.jsonl"):
        code, _, err = asked(target="summarization", rows=name, output=f"{name}.out")
        assert code == 0, err
        assert [row["prediction"] for row in read(inside / f"{name}.out")] == expected, name
    labels = read(inside / "classification-test.jsonl")
    unknown = [{"text": row["text"]} for row in labels[:3]] + [{**row, "label": "x"} for row in labels[3:]]
    write(inside / "texts.jsonl", unknown)
    code, _, err = asked(target="classification", rows="texts.jsonl")
    assert code == 0, err
    found = [row["prediction"] for row in read(inside / "out.jsonl")]
    assert found == [row["prediction"] for row in predictions(inside / "classification")]


def test_a_prompt_or_messages_of_a_dialogue(inside):
    question = read(inside / "dialogue-test.jsonl")[0]["messages"][0]
    rows = [
        {"prompt": question["content"]},
        {"messages": [question]},
        {"messages": [{"from": "human", "value": question["content"]}]},
        {"messages": [question, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]},
    ]
    write(inside / "rows.jsonl", rows)
    code, _, err = asked(rows="rows.jsonl")
    assert code == 0, err
    found = [row["prediction"] for row in read(inside / "out.jsonl")]
    assert found[:3] == [predictions(inside / "dialogue")[0]["prediction"]] * 3
    prompt = f"User: {question['content']}\nBot: Yes.<|end|>\nUser: Why?\nBot:"
    assert found[3] == by_peft(inside / "base", inside / "dialogue" / "adapter", prompt)


def test_columns_under_other_names_as_the_recipe_has_them(inside, tmp_path):
    for name in ("summarization.jsonl", "summarization-test.jsonl"):
        rows = [{"article": row["document"], "gist": row["summary"]} for row in read(inside / name)]
        write(inside / name, rows)
    columns = "task.columns={document: article, summary: gist}"
    code, _, err = inlay("run", "summarization-lora.yaml", "--set", columns, "--output", "renamed")
    assert code == 0, err
    code, _, err = asked(target="renamed", rows="summarization-test.jsonl")
    assert code == 0, err
    found = [row["prediction"] for row in read(inside / "out.jsonl")]
    assert found == [row["prediction"] for row in predictions(inside / "renamed")]


def test_a_model_as_it_is_answers_prompts_and_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save(tmp_path / "model", "llama", tokens=tiny.tokenizer(tiny.CHATML))
    write(tmp_path / "rows.jsonl", [{"prompt": "Hi."}, {"messages": [{"role": "user", "content": "Hi."}]}])
    code, _, err = asked("--max-new-tokens", 5, target="model", rows="rows.jsonl")
    assert code == 0, err
    expected = by_peft(tmp_path / "model", None, "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n", tokens=5)
    assert [row["prediction"] for row in read(tmp_path / "out.jsonl")] == [expected] * 2


def stops_after(monkeypatch, batches: int) -> None:
    """Makes the process stop, as by a signal, after so many batches are kept."""
    real, kept = module._Journal.add, []

    def add(journal, answers):
        real(journal, answers)
        kept.append(answers)
        if len(kept) == batches:
            raise Interrupted("stopped by SIGTERM", 143)

    monkeypatch.setattr(module._Journal, "add", add)


DRAWN = ("--temperature", 2.0, "--seed", 5)


@pytest.mark.parametrize("task", ["dialogue", "classification"])
@pytest.mark.parametrize("torn", [b"", b'{"question": 5, "te', b'{"question": 5}x'])
def test_f8_stopped_and_asked_again_it_goes_on(task, torn, inside, monkeypatch):
    options = DRAWN if task == "dialogue" else ()
    write(inside / "rows.jsonl", read(inside / f"{task}.jsonl"))
    code, _, err = asked(*options, target=task, rows="rows.jsonl", output="whole.jsonl")
    assert code == 0, err
    with monkeypatch.context() as patch:
        stops_after(patch, 2)
        code, out, err = asked(*options, target=task, rows="rows.jsonl")
    assert (code, out) == (143, "")
    partial = inside / "out.jsonl.partial"
    kept = len(partial.read_bytes().splitlines()) - 1
    assert 0 < kept < 30
    assert f"{kept} of 30 answers are kept" in err
    assert not (inside / "out.jsonl").exists()
    with partial.open("ab") as file:
        file.write(torn)
    written = []
    real = module._Journal.add
    monkeypatch.setattr(module._Journal, "add", lambda journal, rows: (written.extend(rows), real(journal, rows)))
    code, _, err = asked(*options, target=task, rows="rows.jsonl")
    assert code == 0, err
    assert f"going on after {kept} of 30 answers" in err
    assert len(written) == 30 - kept, "what was kept is not asked again"
    assert (inside / "out.jsonl").read_bytes() == (inside / "whole.jsonl").read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize("keep", [0, 10])
def test_a_torn_first_line_is_begun_again(keep, inside, monkeypatch):
    with monkeypatch.context() as patch:
        stops_after(patch, 1)
        asked()
    partial = inside / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:keep])
    code, _, err = asked()
    assert code == 0, err
    assert "going on" not in err
    assert [row["prediction"] for row in read(inside / "out.jsonl")] == [
        row["prediction"] for row in predictions(inside / "dialogue")
    ]


def other_input(folder):
    rows = read(folder / "dialogue-test.jsonl")
    write(folder / "dialogue-test.jsonl", [*rows[:-1], rows[0]])


def other_adapter(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "dialogue" / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path)


def other_precision(folder):
    recipe = folder / "dialogue" / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["base"]["quantization"] |= {"bits": 16, "compute_dtype": "bf16"}
    recipe.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (other_input, (), "the input and the prompts changed"),
        (other_adapter, (), "the model changed"),
        (lambda folder: None, ("--max-new-tokens", 4), "the decoding changed"),
        (other_precision, (), "the quantization changed"),
    ],
)
def test_f10_what_is_left_of_another_request_is_not_gone_on_with(changes, options, words, inside, monkeypatch):
    with monkeypatch.context() as patch:
        stops_after(patch, 1)
        assert asked()[0] == 143
    before = (inside / "out.jsonl.partial").read_bytes()
    changes(inside)
    code, out, err = asked(*options)
    assert (code, out) == (2, "")
    assert words in err
    assert (inside / "out.jsonl.partial").read_bytes() == before
    assert not (inside / "out.jsonl").exists()


def test_f10_nor_is_what_another_prompt_asked(inside, monkeypatch):
    with monkeypatch.context() as patch:
        stops_after(patch, 1)
        assert asked(target="summarization")[0] == 143
    recipe = inside / "summarization" / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["task"]["prompt"] = "Of what is this: {document}?"
    recipe.write_text(yaml.safe_dump(content))
    code, _, err = asked(target="summarization")
    assert code == 2
    assert "the prompts changed" in err
    assert not (inside / "out.jsonl").exists()


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n{}\n", b'{"a": 1}\n', b"[]\n"])
def test_a_file_of_somebody_else_is_left_alone(content, inside):
    (inside / "out.jsonl.partial").write_bytes(content)
    code, _, err = asked()
    assert code == 2
    assert "is no list of answers" in err
    assert (inside / "out.jsonl.partial").read_bytes() == content


def test_f21_an_output_is_never_overwritten(inside, monkeypatch):
    monkeypatch.setattr(module, "open_target", lambda *_, **__: pytest.fail("it was opened"))
    (inside / "out.jsonl").write_text("mine")
    code, _, err = asked()
    assert code == 2
    assert "exists already" in err
    assert (inside / "out.jsonl").read_text() == "mine"
    assert "there is no folder" in asked(output="no/such/out.jsonl")[2]
    assert "did you mean `dialogue.jsonl`?" in asked(rows="dialog.jsonl", output="x")[2]


def test_two_at_once_do_not_write_to_one_file(inside):
    import fcntl

    with (inside / "out.jsonl.partial").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = asked()
    assert code == 2
    assert "another process is writing" in err


def test_a_row_that_is_too_long_is_told_and_the_others_are_answered(inside):
    rows = [{"prompt": "Hello."}, {"prompt": answering.LENGTHY}, {"prompt": "Bye."}]
    write(inside / "rows.jsonl", rows)
    code, out, err = asked(rows="rows.jsonl")
    assert (code, out) == (1, "")
    assert "1 of 3 rows are too long" in err
    first, second, third = read(inside / "out.jsonl")
    assert (second["line"], second["prediction"]) == (2, None)
    assert "250 fit" in second["problem"]
    assert first["prediction"]
    assert third["prediction"]
    with pytest.raises(AnswerNo):
        package.generate("dialogue", input="rows.jsonl", output="again.jsonl")


def test_everything_wrong_with_the_rows_is_told_before_anything_is_asked(inside):
    rows = [{"messages": []}, {"prompt": "Hi."}, {"prompt": 3}, {"other": 1}, {"messages": [{"role": "user"}]}]
    write(inside / "rows.jsonl", rows)
    code, _, err = asked(rows="rows.jsonl")
    assert code == 2
    wrong = {1: "an empty list", 3: "`prompt` is a number", 4: "none of `messages`, `prompt`", 5: "message 1"}
    for line, words in wrong.items():
        assert f"rows.jsonl:{line}" in err
        assert words in err
    assert not list(inside.glob("out.jsonl*"))
    (inside / "rows.jsonl").write_text("")
    assert "holds no rows" in asked(rows="rows.jsonl")[2]
    (inside / "rows.jsonl").write_text("{\n")
    assert "broken JSON" in asked(rows="rows.jsonl")[2]


def test_the_same_from_python(inside):
    found = package.generate("dialogue", input="dialogue-test.jsonl", output=inside / "out.jsonl", max_new_tokens=2)
    assert found == inside / "out.jsonl"
    code, _, err = asked("--max-new-tokens", 2, output="cli.jsonl")
    assert code == 0, err
    assert found.read_bytes() == (inside / "cli.jsonl").read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        package.generate("dialogue", input="dialogue-test.jsonl", output=found)


def test_a_killed_process_goes_on(inside):
    write(inside / "rows.jsonl", read(inside / "dialogue.jsonl") * 4)
    command = [sys.executable, "-m", "inlay.tuner", "generate", "dialogue", "--input", "rows.jsonl"]
    command += ["--output", "out.jsonl", "--max-new-tokens", "20"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    partial = inside / "out.jsonl.partial"
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 1):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, _, err = asked("--max-new-tokens", 20, rows="rows.jsonl")
    assert code == 0, err
    assert "going on after" in err
    assert asked("--max-new-tokens", 20, rows="rows.jsonl", output="whole.jsonl")[0] == 0
    assert (inside / "out.jsonl").read_bytes() == (inside / "whole.jsonl").read_bytes()
