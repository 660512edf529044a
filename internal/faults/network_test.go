package faults_test

import "time"

// network are the faults that any driver's connections must heal from. They are
// done to all proxies at once.
func network() []fault {
	return []fault{
		{name: "ThreeDrops", do: func(r *rig) {
			for i := range size(3, 200) {
				for range 3 { // within three seconds
					<-time.After(time.Duration(1+r.rnd.IntN(size(300, 1000))) * time.Millisecond)
					r.each((*proxy).Drop)
				}
				if size(true, i%10 == 0) {
					r.consumes(name("drop", i))
				}
			}
		}},
		{name: "Reset", do: func(r *rig) {
			for range size(5, 50) {
				<-time.After(time.Duration(1+r.rnd.IntN(200)) * time.Millisecond)
				r.each((*proxy).Reset)
			}
		}},
		{name: "HalfOpen", do: func(r *rig) { r.each((*proxy).HalfOpen) }},
		{name: "Blackhole", do: func(r *rig) {
			r.each((*proxy).Blackhole)
			<-time.After(size(3*time.Second, 10*time.Second))
			r.each((*proxy).Heal)
		}},
		{name: "LostAnswers", do: func(r *rig) { // what is asked for happens, and nobody hears of it
			for range size(3, 30) {
				r.each((*proxy).Hold)
				<-time.After(time.Duration(20+r.rnd.IntN(100)) * time.Millisecond)
				r.each((*proxy).Drop)
				r.each((*proxy).Release)
				<-time.After(time.Duration(100+r.rnd.IntN(200)) * time.Millisecond)
			}
		}},
		{name: "Latency", do: func(r *rig) {
			r.each(func(p *proxy) { p.Latency(size(500*time.Millisecond, 2*time.Second)) })
			<-time.After(size(4*time.Second, 20*time.Second))
			r.each(func(p *proxy) { p.Latency(0) })
		}},
	}
}
