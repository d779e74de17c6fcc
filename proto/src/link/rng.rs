//! A generator that the caller seeds: the same seed gives the same numbers on every machine.
//!
//! The generator is xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4),
//! 2021, doi 10.1145/3460772); its state is filled by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, doi
//! 10.1145/2660193.2660195), as its authors advise. Neither is fit for keys, and nothing secret comes from here.

/// SplitMix64: a counter and a mixer. Used for seeds alone.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts at `seed`; every value is as good as another.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// xoshiro256++: 256 bits of state, period 2^256 − 1.
#[derive(Debug, Clone)]
pub struct Rng([u64; 4]);

impl Rng {
    /// A generator whose state is the first four numbers of [`SplitMix64`] at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut fill = SplitMix64::new(seed);
        Self([fill.next_u64(), fill.next_u64(), fill.next_u64(), fill.next_u64()])
    }

    /// One of several generators that share a seed and nothing else, so that drawing more from one does not move another.
    #[must_use]
    pub const fn stream(seed: u64, number: u64) -> Self {
        Self::new(SplitMix64::new(seed ^ SplitMix64::new(number).next_u64()).next_u64())
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.0;
        let result = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let t = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(45);
        result
    }

    /// Even over [0, 1), in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `p`: never at 0, always at 1. Draws one number in any case.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Even over 0 to `n` − 1, with a bias below `n` / 2^32; 0 where `n` is 0.
    pub const fn below(&mut self, n: u32) -> u32 {
        (((self.next_u64() >> 32) * n as u64) >> 32) as u32
    }

    /// A number of the standard normal distribution, by the method of Box and Muller (1958). Draws two numbers.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut g = SplitMix64::new(1_234_567);
        for want in [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ] {
            assert_eq!(g.next_u64(), want);
        }
    }

    #[test]
    fn xoshiro256plusplus_gives_the_numbers_of_the_reference_implementation() {
        let mut g = Rng([1, 2, 3, 4]);
        for want in [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
            14_011_001_112_246_962_877,
            12_406_186_145_184_390_807,
            15_849_039_046_786_891_736,
            10_450_023_813_501_588_000,
        ] {
            assert_eq!(g.next_u64(), want);
        }
        let mut filled = Rng::new(0);
        for want in
            [5_987_356_902_031_041_503, 7_051_070_477_665_621_255, 6_633_766_593_972_829_180, 211_316_841_551_650_330]
        {
            assert_eq!(filled.next_u64(), want);
        }
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let first = |seed, n| Rng::stream(seed, n).next_u64();
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
        assert_eq!(first(7, 3), first(7, 3));
    }

    #[test]
    fn even_and_normal_numbers_have_their_moments() {
        const N: u32 = 200_000;
        let mut g = Rng::new(5);
        let (mut even, mut sum, mut square, mut low) = (0.0, 0.0, 0.0, [0_u32; 3]);
        for _ in 0..N {
            even += g.unit();
            let z = g.normal();
            sum += z;
            square += z * z;
            low[g.below(3) as usize] += 1;
        }
        // Bounds of 4.5 standard errors: sd 1/sqrt(12), 1, sqrt(2), sqrt(2/9).
        let bound = |sd: f64| 4.5 * sd / f64::from(N).sqrt();
        assert!((even / f64::from(N) - 0.5).abs() < bound(0.2887));
        assert!((sum / f64::from(N)).abs() < bound(1.0));
        assert!((square / f64::from(N) - 1.0).abs() < bound(1.4143));
        assert!(low.iter().all(|n| (f64::from(*n) / f64::from(N) - 1.0 / 3.0).abs() < bound(0.4715)), "{low:?}");
        assert_eq!(g.below(0), 0);
    }
}
