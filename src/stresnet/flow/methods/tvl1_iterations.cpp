// The inner iterations of TV-L1 flow: the arithmetic of `_step` in tvl1_torch_scale.py, operation by operation, so that
// both round alike.
//
// The flow and the dual variable are updated in place, a band of rows after another. In each band the k-th iteration
// lags k rows behind the first, so that it finds all that it reads: the flow of a row reads the dual variable of that
// row and of the row above before their k-th iteration, and the dual variable of a row reads the flow of that row and
// of the row below after theirs. Several iterations thus pass over a band while it is in the cache.

#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>

namespace {

using Vec = at::vec::Vectorized<float>;

constexpr int64_t BAND_ROWS = 8;
constexpr int64_t DEPTH = 10;  // iterations per pass: at 340 px, bands of 18 rows are 250 KB

struct Lines {
  float *u, *p_right, *p_down;  // (2, rows + 2, width) each, from the first row after the padding
  const float *data, *right, *down;  // (4, rows + 1, width); (width); (rows)
  int64_t rows, width;
  float reach, theta;
};

inline Vec load(const float* at) { return Vec::loadu(at); }

void threshold(const Lines& lines, int64_t first, int64_t end) {
  const int64_t plane = (lines.rows + 2) * lines.width, term = (lines.rows + 1) * lines.width;
  const Vec least(-lines.reach), most(lines.reach), theta(lines.theta);
  for (int64_t at = first * lines.width; at < end * lines.width; at += Vec::size()) {
    const float* data = lines.data + at;
    const Vec gradient[2] = {load(data), load(data + term)};
    const Vec now[2] = {load(lines.u + at), load(lines.u + plane + at)};
    Vec move = gradient[0] * now[0];
    move = move + load(data + 2 * term);
    move = move + gradient[1] * now[1];
    move = at::vec::clamp(move * load(data + 3 * term), least, most);
    for (int c = 0; c < 2; c++) {
      const float *p_right = lines.p_right + c * plane + at, *p_down = lines.p_down + c * plane + at;
      Vec divergence = load(p_right) - load(p_right - 1);
      divergence = divergence + load(p_down);
      divergence = divergence - load(p_down - lines.width);
      const Vec next = (now[c] - move * gradient[c]) + divergence * theta;
      next.store(lines.u + c * plane + at);
    }
  }
}

void smooth(const Lines& lines, int64_t first, int64_t end) {
  const int64_t plane = (lines.rows + 2) * lines.width;
  const Vec tiny(1e-20f), one(1.0f);
  for (int64_t row = first; row < end; row++) {
    const Vec down(lines.down[row]);
    for (int64_t x = 0; x < lines.width; x += Vec::size()) {
      const Vec right = load(lines.right + x);
      for (int c = 0; c < 2; c++) {
        const int64_t at = c * plane + row * lines.width + x;
        const Vec here = load(lines.u + at);
        const Vec to_right = (load(lines.u + at + 1) - here) * right;
        const Vec downward = (load(lines.u + at + lines.width) - here) * down;
        Vec squared = to_right * to_right;
        squared = squared + downward * downward;
        const Vec shrink = ((squared + tiny).rsqrt() * squared + one).reciprocal();
        ((to_right + load(lines.p_right + at)) * shrink).store(lines.p_right + at);
        ((downward + load(lines.p_down + at)) * shrink).store(lines.p_down + at);
      }
    }
  }
}

}  // namespace

// Takes iterations. The width must be a multiple of 16, as many floats as the widest vectors hold.
extern "C" void iterate(float* u, float* p_right, float* p_down, const float* data, const float* right,
                        const float* down, int64_t rows, int64_t width, float reach, float theta, int64_t iterations) {
  const Lines lines{u + width, p_right + width, p_down + width, data, right, down, rows, width, reach, theta};
  const auto inside = [rows](int64_t row) { return std::clamp<int64_t>(row, 0, rows); };
  for (int64_t done = 0; done < iterations; done += DEPTH) {
    const int64_t depth = std::min(DEPTH, iterations - done);
    for (int64_t band = 0; band < rows + depth; band += BAND_ROWS) {
      for (int64_t k = 0; k < depth; k++) {
        threshold(lines, inside(band - k), inside(band - k + BAND_ROWS));
        smooth(lines, inside(band - k - 1), inside(band - k - 1 + BAND_ROWS));
      }
    }
  }
}
