"""The least that a step of training costs: its products with the couplings, and their update, without a network."""

import functools
import time

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames="products", donate_argnums=0)
def _steps(weights, xs, products):
    def step(weights, x):
        moved = []
        for weight, count in zip(weights, products, strict=True):
            before, after = x, x @ weight
            for number in range(1, count):
                if number % 2:
                    before = jnp.maximum(after, 0) @ weight.T
                else:
                    after = before @ weight
            pairs = zip(before, after, strict=True)
            # a product of matrices is quicker than many outer products
            outer = sum(b[:, None] * a for b, a in pairs) if len(x) <= 4 else before.T @ after
            moved.append(jnp.maximum(weight - 1e-6 * outer, 0))
            x = jnp.maximum(after, 0)
        return moved, None

    return jax.lax.scan(step, weights, xs)[0]


class Floor:
    """Steps that multiply a batch with every matrix so many times, forth and back, and then write

        weight <- max(weight - rate (sum of outer products), 0).

    Args:
        sizes: of the layers; the first as often as conductances stand for its nodes.
        batch: examples in a step.
        products: for every matrix.
        steps: how many are timed at once.
    """

    def __init__(self, sizes, batch, products, steps=200):
        keys = jax.random.split(jax.random.key(0), len(sizes))
        pairs = zip(keys[1:], sizes[:-1], sizes[1:], strict=True)
        self.weights = [1e-3 * jax.random.uniform(key, pair, jnp.float32) for key, *pair in pairs]
        self.xs = jax.random.uniform(keys[0], (steps, batch, sizes[0]), jnp.float32)
        self.products = tuple(products)

    def seconds(self) -> float:
        """Of one step."""
        began = time.perf_counter()
        self.weights = jax.block_until_ready(_steps(self.weights, self.xs, self.products))
        return (time.perf_counter() - began) / len(self.xs)
