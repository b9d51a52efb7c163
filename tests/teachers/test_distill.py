"""Steps of distillation: several teachers, two students, labels beside a teacher."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

import ppcls
from ppcls.config.load import from_plain
from ppcls.data.loader import Batch
from ppcls.losses.distill import Outputs
from ppcls.models.layers import Normalize
from ppcls.tasks import Distill
from ppcls.train.distill import Learning, Mutual, together, widths
from ppcls.train.teachers import with_features

TEACHER = {"name": "ResNet18", "weights": "x"}
rng = np.random.default_rng(0)
LOGITS, OTHERS = (paddle.to_tensor(rng.normal(0, 2, (4, 3))) for _ in range(2))
LABELS = paddle.to_tensor([0, 1, 2, 1])
IMAGES = paddle.zeros([4, 8, 8, 3], "uint8")
BATCH = Batch(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 1]), np.arange(4))


def task(**given):
    return from_plain(Distill, {"kind": "distill", "teacher": TEACHER, **given}, "a test")


def test_several_teachers_are_the_mean_of_their_probabilities():
    guide = together(
        [lambda images, indices: Outputs(LOGITS), lambda images, indices: Outputs(OTHERS)]
    )
    found = F.softmax(guide(IMAGES, BATCH.indices).logits).numpy()
    np.testing.assert_allclose(found, (F.softmax(LOGITS) + F.softmax(OTHERS)).numpy() / 2)
    alone = together([lambda images, indices: Outputs(LOGITS)])
    assert alone(IMAGES, BATCH.indices).logits is LOGITS


def test_a_step_is_the_weighted_sum_of_its_losses():
    kl, labels = (
        F.kl_div(F.log_softmax(LOGITS), F.softmax(OTHERS), reduction="batchmean"),
        F.cross_entropy(LOGITS, LABELS),
    )
    made = task(losses=[{"kind": "kl", "weight": 3}, {"kind": "kl"}], labels_weight=0.5)
    step = Learning(
        made,
        lambda images: (LOGITS, ()),
        lambda images, indices: Outputs(OTHERS),
        list(made.losses),
    )
    loss, logits = step(IMAGES, LABELS, BATCH)
    assert float(loss) == pytest.approx(float(4 * kl + labels / 2))
    assert logits is LOGITS


def test_two_students_learn_from_one_another_and_not_through_one_another():
    made = task(teacher={"kind": "peer", "name": "ResNet18"}, labels_weight=2)
    students = [x.clone().detach() for x in (LOGITS, OTHERS)]
    for logits in students:
        logits.stop_gradient = False
    looks = [lambda images, own=own: (own, ()) for own in students]
    step = Mutual(made, (looks[0], looks[1]), (list(made.losses), list(made.losses)))
    loss, logits = step(IMAGES, LABELS, BATCH)
    loss.backward()
    assert logits is students[0]
    p, q = (F.softmax(own.detach()).numpy() for own in students)
    hard = np.eye(3)[LABELS.numpy()]
    divergences = (q * np.log(q / p)).sum(1).mean() + (p * np.log(p / q)).sum(1).mean()
    surprise = -(hard * np.log(p)).sum(1).mean() - (hard * np.log(q)).sum(1).mean()
    assert float(loss) == pytest.approx(divergences + 2 * surprise)
    # Of KL(q || p) alone with q held: p - q; of the cross entropy: p - label.
    np.testing.assert_allclose(students[0].grad.numpy(), (p - q + 2 * (p - hard)) / 4, atol=1e-12)
    np.testing.assert_allclose(students[1].grad.numpy(), (q - p + 2 * (q - hard)) / 4, atol=1e-12)


@pytest.mark.parametrize("name", ["ResNet18_vd", "EfficientNetLite0"])
def test_looking_gives_logits_and_the_features_that_lead_to_them(name):
    paddle.seed(0)
    net = ppcls.create_model(name, 3)
    before = {k: v.numpy() for k, v in net.state_dict().items()}
    found = widths(net, 3)
    assert net.training
    assert found == [*net.spec.widths] if name == "ResNet18_vd" else len(found) == 5
    assert all((before[k] == v.numpy()).all() for k, v in net.state_dict().items())
    whole = Normalize.before(net, np.ones(3, "float32"), np.zeros(3, "float32"))
    whole.eval()
    images = paddle.to_tensor(rng.integers(0, 256, (2, 64, 64, 3), np.uint8))
    logits, features = with_features(whole, True)(images)
    assert (logits == whole(images)).all()
    assert [f.shape[1] for f in features] == found
    assert [f.shape[2] for f in features][-2:] == [4, 2]  # strides 16 and 32
    assert with_features(whole, False)(images)[1] == ()
