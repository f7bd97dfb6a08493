from itertools import islice

import numpy as np
import pytest

from detection.data.sampling import TrainBatches, augmentation_seed, shard


def batches_of(count: int, batch_size: int, portraits=(), **settings) -> TrainBatches:
    sizes = np.tile([30, 40], (count, 1))
    sizes[list(portraits)] = (40, 30)
    return TrainBatches(np.arange(count), sizes, batch_size, **settings)


def epoch_of(sampler: TrainBatches, epoch: int) -> list[list[int]]:
    sampler.seek(epoch * len(sampler))
    return [[draw.image for draw in batch] for batch in sampler]


class TestEpoch:
    @pytest.mark.parametrize("world", [1, 2, 3])
    @pytest.mark.parametrize("count", [6, 11, 24])
    def test_ranks_are_disjoint_and_drop_only_the_remainder(self, count, world):
        ranks = [batches_of(count, 2, (0, 3, 4), rank=r, world=world) for r in range(world)]
        for epoch in range(3):
            parts = [epoch_of(sampler, epoch) for sampler in ranks]
            assert {len(part) for part in parts} == {count // (2 * world)}
            assert {len(batch) for part in parts for batch in part} == {2}
            seen = [image for part in parts for batch in part for image in batch]
            assert len(set(seen)) == len(seen) == count - count % (2 * world)

    def test_epochs_and_seeds_differ_and_repeat(self):
        one, other = batches_of(20, 2, seed=1), batches_of(20, 2, seed=2)
        assert epoch_of(one, 0) != epoch_of(one, 1)
        assert epoch_of(one, 0) != epoch_of(other, 0)
        assert epoch_of(one, 4) == epoch_of(batches_of(20, 2, seed=1), 4)

    def test_images_are_the_given_ones(self):
        sampler = TrainBatches(np.array([3, 5, 9]), np.tile([30, 40], (3, 1)), 1)
        assert sorted(epoch_of(sampler, 0)) == [[3], [5], [9]]


class TestGroups:
    def test_at_most_one_batch_mixes(self):
        portraits = set(range(0, 50, 3))
        for epoch in range(10):
            batches = epoch_of(batches_of(50, 4, portraits), epoch)
            mixed = [b for b in batches if len({image in portraits for image in b}) > 1]
            assert len(mixed) <= 1

    def test_groups_come_in_mixed_order(self):
        portraits = set(range(20))
        kinds = [b[0] in portraits for b in epoch_of(batches_of(40, 2, portraits), 0)]
        assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))

    @pytest.mark.parametrize("world", [1, 2])
    def test_a_lone_portrait_is_seen(self, world):
        seen = {
            image
            for rank in range(world)
            for epoch in range(20)
            for batch in epoch_of(batches_of(7, 3, (5,), rank=rank, world=world), epoch)
            for image in batch
        }
        assert seen == set(range(7))


class TestFewImages:
    def test_fewer_than_a_batch(self):
        (batch,) = epoch_of(batches_of(3, 8, (1,)), 0)
        assert sorted(batch) == [0, 1, 2]

    def test_fewer_than_a_batch_for_each_rank(self):
        parts = [epoch_of(batches_of(5, 4, rank=rank, world=2), 0) for rank in range(2)]
        assert [len(part) for part in parts] == [1, 1]
        assert sorted(parts[0][0] + parts[1][0]) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(("count", "world"), [(0, 1), (2, 3)])
    def test_too_few_is_an_error(self, count, world):
        with pytest.raises(ValueError, match=f"{count} training images"):
            batches_of(count, 2, world=world)


class TestPosition:
    @pytest.mark.parametrize("position", [0, 2, 5, 9])
    def test_seek_goes_on_in_the_stream(self, position):
        sampler = batches_of(11, 2, (0, 1))
        whole = []
        for epoch in range(3):
            sampler.seek(epoch * 5)
            whole += list(sampler)
        sampler.seek(position)
        assert len(sampler) == 5
        assert list(sampler) == whole[position : position + 5]

    def test_an_iteration_keeps_the_position_it_started_at(self):
        sampler = batches_of(10, 2)
        expected, running = list(sampler), iter(sampler)
        first = list(islice(running, 2))
        sampler.seek(3)
        assert first + list(running) == expected

    def test_seeds_depend_on_run_epoch_and_image(self):
        seeds = [
            augmentation_seed(seed, epoch, image)
            for seed in range(5)
            for epoch in range(5)
            for image in range(20)
        ]
        assert len(set(seeds)) == 500
        assert 0 <= min(seeds) < max(seeds) < 2**32
        sampler = batches_of(4, 2, seed=3)
        sampler.seek(2)
        for batch in sampler:
            assert [draw.seed for draw in batch] == [
                augmentation_seed(3, 1, draw.image) for draw in batch
            ]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_hold_every_image_once(world):
    shards = [shard(7, rank, world) for rank in range(world)]
    assert sorted(image for part in shards for image in part) == list(range(7))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
