import torch

from melastic import devices


def test_other_threads_get_cores_and_torch_gets_them_back(monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        for workers, threads in ((0, 8), (3, 5), (8, 1), (20, 1)):
            with devices.cores_shared_with(workers):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 8
        torch.set_num_threads(2)
        with devices.cores_shared_with(1):
            assert torch.get_num_threads() == 2, "never more than were chosen"
    finally:
        torch.set_num_threads(before)


def test_half_of_the_cores_read_and_at_least_one(monkeypatch):
    for cores, readers in ((1, 1), (2, 1), (3, 1), (16, 8)):
        monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
        assert devices.reading_threads() == readers
