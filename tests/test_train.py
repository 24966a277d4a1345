"""Training: the same beginning for both norms, and the same end with or without an interrupt.

Needs what train/requirements.txt lists, which the other tests do not: python -m pytest tests/test_train.py
"""

import json
import math
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jinja2
import pytest

torch = pytest.importorskip("torch", reason="train/requirements.txt is not installed")
pytest.importorskip("transformers", reason="train/requirements.txt is not installed")
sentencepiece = pytest.importorskip("sentencepiece", reason="train/requirements.txt is not installed")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))
import train  # noqa: E402
from stories import Misread, stories  # noqa: E402

TINY = train.Recipe(vocab=512, dim=32, layers=2, heads=2, hidden=64, batch=2, steps=6, warmup=2, held_out=4,
                    every=2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train.make_tokenizer(path, train.Recipe.vocab)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def run(norm, folder, recipe=TINY, **options):
    model = train.train(norm, 3, recipe, out=folder / "out", results=folder / "results", **options)
    return model, json.loads((folder / "results" / f"{norm}-{recipe.optimizer}-3.json").read_text())


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_partial_rms_norm():
    """3 numbers of 48 decide: of 3, 4 and 12 the mean square is 56 1/3."""
    norm = train.make_model("prmsnorm", replace(TINY, dim=48), 0).model.norm
    x = torch.arange(48.0)
    x[:3] = torch.tensor([3.0, 4.0, 12.0])
    norm.weight.data.fill_(2)
    assert torch.allclose(norm(x), 2 * x / (169 / 3 + 1e-5) ** 0.5)


@pytest.mark.parametrize("norm, optimizer", [("rmsnorm", "adamw"), ("layernorm", "adamw"),
                                             ("layernorm", "muon")])
def test_an_interrupt_changes_nothing(norm, optimizer, tmp_path):
    recipe = replace(TINY, optimizer=optimizer)
    whole, whole_report = run(norm, tmp_path / "whole", recipe)
    assert run(norm, tmp_path / "parts", recipe, stop=3)[0] is None     # step 2 will be done again
    parts, parts_report = run(norm, tmp_path / "parts", recipe)
    assert same(whole, parts)
    for report in whole_report, parts_report:
        for point in report["curve"]:
            del point["seconds"]
    assert whole_report == parts_report
    assert [point["step"] for point in whole_report["curve"]] == [2, 4, 6]


def test_a_second_round_goes_on_from_the_first(tmp_path):
    whole, _ = run("rmsnorm", tmp_path / "whole", rounds=2)
    run("rmsnorm", tmp_path / "parts")
    parts, report = run("rmsnorm", tmp_path / "parts", rounds=2)
    assert same(whole, parts)
    assert [point["step"] for point in report["curve"]] == [2, 4, 6, 8, 10, 12]


def test_the_norms_begin_alike():
    rms, layer = (train.make_model(norm, TINY, 5) for norm in train.NORMS)
    rms_state, layer_state = rms.state_dict(), layer.state_dict()
    biases = {name.replace("weight", "bias") for name in rms_state if "norm" in name}
    assert set(layer_state) - set(rms_state) == biases
    for name, tensor in rms_state.items():
        assert torch.equal(tensor, layer_state[name]), name
    for name in biases:
        assert not layer_state[name].any() and layer.get_parameter(name).requires_grad, name
    assert not torch.equal(rms.lm_head.weight, train.make_model("rmsnorm", TINY, 6).lm_head.weight)


def test_the_norms_are_one_network_but_for_the_mean(monkeypatch):
    """With the mean left in, StableLM's logits are LLaMA's."""
    def without_mean(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    rms, layer = (train.make_model(norm, TINY, 7).eval() for norm in train.NORMS)
    ids = torch.arange(3, 40)[None]
    assert not torch.allclose(rms(ids).logits, layer(ids).logits, atol=1e-4)
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", without_mean)
    assert torch.allclose(rms(ids).logits, layer(ids).logits, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_biases_learn(optimizer, tmp_path):
    model, _ = run("layernorm", tmp_path, replace(TINY, optimizer=optimizer))
    biases = [tensor for name, tensor in model.state_dict().items() if name.endswith("bias")]
    assert len(biases) == 2 * TINY.layers + 1 and all(bias.any() for bias in biases)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_of_the_layers_decay(optimizer):
    """One step without any gradient: what decays becomes smaller by lr * decay, and nothing else moves."""
    model = train.make_model("layernorm", TINY, 4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = train.make_optimizers(model, replace(TINY, optimizer=optimizer, lr=0.5, decay=0.25))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:
        optimizer.step()
    for name, p in model.named_parameters():
        left = 1 - 0.5 * 0.25 if name.endswith("proj.weight") else 1
        assert torch.allclose(p, left * before[name]), name


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (32, 96)])
def test_muon_is_that_of_torch(shape):
    """Step by step, from where ours has come to. torch's rounds to bfloat16, whose precision is 1/256."""
    torch.manual_seed(8)
    mine, theirs = (torch.nn.Parameter(torch.randn(shape)) for _ in range(2))
    optimizers = [train.Muon([mine], lr=0.1, weight_decay=0.5),
                  torch.optim.Muon([theirs], lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")]
    for _ in range(5):
        before = mine.detach().clone()
        theirs.data.copy_(before)
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        assert (mine - theirs).norm() < 0.01 * (mine - before).norm()


def test_means_of_columns_by_hand():
    """What was drawn has not moved. Then each matrix loses the means of its columns, and gets others."""
    model = train.make_model("layernorm", TINY, 6)
    for found in train.column_means(model, "layernorm", TINY, 6).values():
        assert found["correlation"] == pytest.approx(1) and found["growth"] == found["growth_of_all"] == 1
    for name, p in model.named_parameters():
        if name.endswith("down_proj.weight"):
            p.data -= 3 * p.data.mean(0)                # a mean m becomes -2 m
    found = train.column_means(model, "layernorm", TINY, 6)
    assert found["o_proj"]["correlation"] == pytest.approx(1)
    assert found["down_proj"]["correlation"] == pytest.approx(-1, abs=1e-5)
    assert found["down_proj"]["growth"] == pytest.approx(2, rel=1e-4)


def test_texts_are_of_three_kinds():
    texts, n = train.Texts(), 150
    drawn = texts.draw("a seed", n)
    assert drawn == train.Texts().draw("a seed", n) != texts.draw("another", n)
    kinds = dict.fromkeys(("whole", "middle", "talk"), 0)
    for text in drawn:
        try:
            (texts.talk if "§" in text else texts.whole).read(text)
            kinds["talk" if "§" in text else "whole"] += 1
        except Misread:
            texts.whole.read_rest(text)
            kinds["middle"] += 1
    for (kind, count), part in zip(kinds.items(), (train.WHOLE, train.MIDDLES, train.TALKS)):
        assert abs(count - n * part) < 4 * math.sqrt(n * part), kinds
    assert train.WHOLE + train.MIDDLES + train.TALKS == pytest.approx(1)


def test_a_conversation_is_written_as_its_template_says(tokenizer):
    """What Jinja renders, each {eos} an id of its own."""
    talk = "Tell me a story about a fox.§Once upon a time.\nThe end.§Thank you!§You are welcome."
    ids = train.encode(tokenizer, talk)
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": turn}
                for i, turn in enumerate(talk.split("§"))]
    rendered = jinja2.Environment().from_string(train.CHAT_TEMPLATE).render(
        messages=messages, eos_token="</s>", add_generation_prompt=False)
    expected = []
    for i, part in enumerate(rendered.split("</s>")):
        expected += tokenizer.encode(part) + [train.EOS]
    assert ids == expected[:len(ids)] and expected[len(ids):] == tokenizer.encode("\n") + [train.EOS]
    assert train.BOS not in ids and ids.count(train.EOS) == 4


def test_what_is_saved_is_what_was_trained(tmp_path):
    for norm, architecture in zip(train.NORMS, (train.LlamaForCausalLM, train.StableLmForCausalLM)):
        model, report = run(norm, tmp_path)
        folder = tmp_path / "out" / f"{norm}-{TINY.optimizer}-3"
        assert same(model, architecture.from_pretrained(folder))
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == [architecture.__name__]
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == train.EOS
        assert report["parameters"] == sum(p.numel() for p in model.parameters())
        assert (folder / "chat_template.jinja").read_text() == train.CHAT_TEMPLATE


def test_text_survives_the_tokenizer(tokenizer):
    assert tokenizer.get_piece_size() == train.Recipe.vocab
    assert (tokenizer.bos_id(), tokenizer.eos_id()) == (train.BOS, train.EOS)
    texts = [text for text, _ in islice(stories(8), 200)] + ["Älter, 字, \t\n two  blanks "]
    for text, ids in zip(texts, tokenizer.encode(texts)):
        assert tokenizer.decode(ids) == text
        assert train.BOS not in ids and train.EOS not in ids
        assert len(ids) + 2 <= train.Recipe.context
    prompt = tokenizer.encode("Once upon a time")
    assert all(tokenizer.encode(text)[:len(prompt)] == prompt
               for text in texts if text.startswith("Once upon a time"))
    assert tokenizer.encode("<|user|>\nA")[0] == tokenizer.piece_to_id("<|user|>")     # no space in front


def test_a_story_costs_its_tokens_and_its_end(tokenizer):
    """A model that knows nothing pays log(vocab) for each token of a story, and for its end."""
    class Blank(torch.nn.Module):
        def forward(self, input_ids, use_cache):
            logits = torch.zeros(*input_ids.shape, train.Recipe.vocab)
            return type("Output", (), {"logits": logits})

    texts = ["Once upon a time", "A cat."]
    ids = tokenizer.encode(texts)
    inputs, targets = train.make_batch(tokenizer, texts)
    assert inputs[0].tolist() == [train.BOS] + ids[0]
    assert targets[0].tolist() == ids[0] + [train.EOS]
    assert targets[1].tolist()[:len(ids[1]) + 1] == ids[1] + [train.EOS]
    count = sum(len(row) + 1 for row in ids)
    assert train.nats(Blank(), inputs, targets).item() == pytest.approx(count * math.log(train.Recipe.vocab))
    assert train.validate(Blank(), tokenizer, texts) == pytest.approx(count * 10 / sum(map(len, texts)))


def test_the_learning_rate_goes_up_and_down():
    recipe = train.Recipe(steps=10, warmup=4, lr=1.0)
    rates = [train.learning_rate(step, recipe) for step in range(20)]
    assert rates == pytest.approx([1/4, 1/2, 3/4, 1, 1, 5/6, 4/6, 3/6, 2/6, 1/6] * 2)


def test_another_recipe_is_refused(tmp_path):
    run("rmsnorm", tmp_path, stop=3)
    with pytest.raises(AssertionError, match="another recipe"):
        run("rmsnorm", tmp_path, recipe=replace(TINY, lr=1e-3))
