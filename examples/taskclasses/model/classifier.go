package main

import (
	"math"
	"math/rand/v2"
)

// Classifier is Gaussian naive Bayes over two features: for each kind of flower
// the mean and the variance of its petals. It is read-only once trained, so any
// number of goroutines may ask it.
type Classifier struct{ kinds []kind }

type kind struct {
	name           string
	mean, variance [2]float64
}

// Sample is a flower whose kind is known.
type Sample struct {
	Petal [2]float64 // length and width in centimetres
	Kind  string
}

// Train learns from samples.
func Train(samples []Sample) *Classifier {
	byKind := map[string][][2]float64{}
	var names []string
	for _, s := range samples {
		if byKind[s.Kind] == nil {
			names = append(names, s.Kind)
		}
		byKind[s.Kind] = append(byKind[s.Kind], s.Petal)
	}
	c := &Classifier{}
	for _, name := range names {
		k := kind{name: name}
		n := float64(len(byKind[name]))
		for i := range k.mean {
			for _, petal := range byKind[name] {
				k.mean[i] += petal[i] / n
			}
			for _, petal := range byKind[name] {
				d := petal[i] - k.mean[i]
				k.variance[i] += d * d / n
			}
		}
		c.kinds = append(c.kinds, k)
	}
	return c
}

// Predict names the likeliest kind.
func (c *Classifier) Predict(petal [2]float64) string {
	best, most := "", math.Inf(-1)
	for _, k := range c.kinds {
		likelihood := 0.0
		for i, x := range petal {
			d := x - k.mean[i]
			likelihood -= d*d/(2*k.variance[i]) + math.Log(k.variance[i])/2
		}
		if likelihood > most {
			best, most = k.name, likelihood
		}
	}
	return best
}

// grow makes n flowers of three kinds; the same seed gives the same flowers.
func grow(seed uint64, n int) []Sample {
	kinds := []struct {
		name          string
		length, width float64
	}{{"daisy", 1.5, 0.3}, {"iris", 4.3, 1.3}, {"tulip", 5.6, 2.1}}
	random := rand.New(rand.NewPCG(seed, seed))
	flowers := make([]Sample, n)
	for i := range flowers {
		k := kinds[i%len(kinds)]
		flowers[i] = Sample{
			Petal: [2]float64{k.length + random.NormFloat64()*0.6, k.width + random.NormFloat64()*0.4},
			Kind:  k.name,
		}
	}
	return flowers
}
