package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// world is two clusters, as far as faults look at them, and a server's bundles. broker has
// two servers on one datastore.
type world struct {
	// calls counts the calls. Those from failFrom to failTo, counted from 1, fail,
	// and where lost is set they have done what was asked for.
	calls, failFrom, failTo int
	lost                    bool
	// eager has Kubernetes do by the next call what it is asked for; else it waits
	// for settle.
	eager          bool
	market, broker *site
	bundles        map[spiffeid.TrustDomain]*spiffebundle.Bundle
}

// site is a cluster: what it is asked to be, and what is.
type site struct {
	w       *world
	name    string
	address netip.Addr
	on      bool
	rules   []string

	// The server's pods are those from start on. second is the other of two.
	replicas, start        int
	second                 process
	volume                 int
	nodeSelector, selector string

	// bundle is there unless it was lost, and added is what is no part of the lab.
	bundle, added bool
	// banned is the agent of the cluster as its server has it.
	banned bool

	// databases is how many of the server's PostgreSQL there are to be.
	databases int

	server, manager, agent, database process
	claim                            int
	endpoints                        []string
}

// process is a container's. It was started run times; 0 is a pod that is gone.
// That it died with its node Kubernetes does not tell.
type process struct {
	run                    int
	running, stopped, died bool
}

func newWorld() *world {
	w := &world{bundles: map[spiffeid.TrustDomain]*spiffebundle.Bundle{}}
	w.market, w.broker = newSite(w, "market", "10.192.0.2"), newSite(w, "broker", "10.192.0.3")
	w.broker.replicas, w.broker.second = 2, w.broker.server
	return w
}

func newSite(w *world, name, address string) *site {
	one := process{run: 1, running: true}
	return &site{
		w: w, name: name, address: netip.MustParseAddr(address), on: true, replicas: 1, selector: "spire-server",
		server: one, manager: one, agent: one, database: one, databases: 1, volume: 1, claim: 1, endpoints: []string{"10.64.0.9"},
		bundle: true,
	}
}

// do is one call.
func (w *world) do(call func() error) error {
	if w.eager {
		w.settle()
	}
	w.calls++
	if fails := w.failFrom <= w.calls && w.calls <= w.failTo; fails && !w.lost {
		return fmt.Errorf("injected into call %d", w.calls)
	} else if err := call(); err != nil || !fails {
		return err
	}
	return fmt.Errorf("lost the answer to call %d", w.calls)
}

// settle makes all as Kubernetes was asked for.
func (w *world) settle() {
	for _, s := range []*site{w.market, w.broker} {
		if !s.on {
			continue
		}
		if s.claim == 0 && s.replicas > 0 {
			s.volume++
			s.claim = s.volume
		}
		for _, p := range []*process{&s.server, &s.manager} {
			p.want(s.replicas > 0 && s.start == 0)
		}
		s.second.want(s.start+s.replicas == 2)
		s.agent.want(s.nodeSelector == "")
		if s.banned { // it was started, and ended, twice
			s.agent = process{run: s.agent.run + 2}
		}
		s.database.want(s.databases == 1)
		s.endpoints = nil
		if s.selector == "spire-server" && s.replicas > 0 {
			s.endpoints = []string{"10.64.0.9"}
		}
	}
}

func (p *process) want(there bool) {
	switch {
	case !there:
		*p = process{}
	case !p.running || p.died:
		*p = process{run: p.run + 1, running: true}
	}
}

// String tells what a fault changes and has to put back.
func (w *world) String() string {
	text := fmt.Sprint(w.bundles)
	for _, s := range []*site{w.market, w.broker} {
		text += fmt.Sprintf("\n%s on %t rules %q replicas %d node %q endpoint %q server %t %t manager %t second %t agent %t claim %t databases %d bundle %t added %t banned %t", s.name, s.on, s.rules,
			s.replicas, s.nodeSelector, s.selector, s.server.running, s.server.stopped, s.manager.stopped, s.second.running, s.agent.running, s.claim > 0, s.databases, s.bundle, s.added, s.banned)
	}
	return text
}

func (s *site) cluster() fault.Cluster {
	return fault.Cluster{Name: s.name, Namespace: "spire-system", Cluster: access.Cluster{Objects: s, Pods: pods{site: s}}, Node: s, Power: s}
}

// paired is the cluster of a site with two servers on one datastore.
func (s *site) paired() fault.Cluster {
	c := s.cluster()
	c.Replicas = 2
	return c
}

// Apply understands the parts that faults give.
func (s *site) Apply(_ context.Context, objects ...any) (bool, error) {
	return true, s.w.do(func() error {
		for _, object := range objects {
			data, err := json.Marshal(object)
			if err != nil {
				return err
			}
			switch text := string(data); text {
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-server","namespace":"spire-system"},"spec":{"replicas":0}}`:
				s.replicas = 0
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-server","namespace":"spire-system"},"spec":{"replicas":1}}`:
				s.replicas, s.start = 1, 0
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-server","namespace":"spire-system"},"spec":{"ordinals":{"start":0},"replicas":2}}`:
				s.replicas, s.start = 2, 0
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-server","namespace":"spire-system"},"spec":{"ordinals":{"start":1},"replicas":1}}`:
				s.replicas, s.start = 1, 1
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-server","namespace":"spire-system"},"spec":{"ordinals":{"start":0},"replicas":1}}`:
				s.replicas, s.start = 1, 0
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-database","namespace":"spire-system"},"spec":{"replicas":0}}`:
				s.databases = 0
			case `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"spire-database","namespace":"spire-system"},"spec":{"replicas":1}}`:
				s.databases = 1
			case `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"spire-agent","namespace":"spire-system"},` +
				`"spec":{"template":{"spec":{"nodeSelector":{"fedlab.dev/fault":"agent-stopped"}}}}}`:
				s.nodeSelector = "fedlab.dev/fault"
			case `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"spire-agent","namespace":"spire-system"}}`:
				s.nodeSelector = ""
			case `{"apiVersion":"v1","kind":"Service","metadata":{"name":"spire-bundle-endpoint","namespace":"spire-system"},` +
				`"spec":{"selector":{"app.kubernetes.io/name":"nobody"}}}`:
				s.selector = "nobody"
			case `{"apiVersion":"v1","kind":"Service","metadata":{"name":"spire-bundle-endpoint","namespace":"spire-system"},` +
				`"spec":{"selector":{"app.kubernetes.io/name":"spire-server"}}}`:
				s.selector = "spire-server"
			case `{"apiVersion":"v1","data":{"bundle.crt":"PEM"},"kind":"ConfigMap","metadata":{"annotations":{"a":"b"},"labels":{"c":"d"},` +
				`"name":"spire-bundle","namespace":"spire-system"}}`:
				s.bundle = true
			case `{"kind":"Stranger"}`:
				s.added = true
			default:
				return errors.New("nobody asks for " + text)
			}
		}
		return nil
	})
}

func (s *site) Object(_ context.Context, key access.ObjectKey, into any) (found bool, err error) {
	err = s.w.do(func() error {
		if !s.on {
			return errors.New("connection refused")
		}
		var object any
		switch key.Kind + " " + key.Namespace + "/" + key.Name {
		case "Pod spire-system/spire-server-0":
			if found = s.server.run > 0; found {
				object = pod(s.server.status("spire-server"), s.manager.status("spire-controller-manager"))
			}
		case "Pod spire-system/spire-server-1":
			if found = s.second.run > 0; found {
				object = pod(s.second.status("spire-server", "second"))
			}
		case "Pod spire-system/spire-agent-x":
			if found = s.agent.run > 0; found {
				object = pod(s.agent.status("spire-agent"))
			}
		case "StatefulSet spire-system/spire-database":
			found, object = true, map[string]any{}
		case "Pod spire-system/spire-database-0":
			if found = s.database.run > 0; found {
				object = pod(s.database.status("postgres"))
			}
		case "PersistentVolumeClaim spire-system/data-spire-server-0":
			if found = s.claim > 0; found {
				object = map[string]any{"metadata": map[string]any{"uid": fmt.Sprint(s.claim)}}
			}
		case "DaemonSet spire-system/spire-agent":
			selector := map[string]any{}
			if found = true; s.nodeSelector != "" {
				selector[s.nodeSelector] = "agent-stopped"
			}
			object = map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": selector}}}}
		case "ConfigMap spire-system/spire-bundle":
			found = s.bundle
			object = map[string]any{
				"metadata": map[string]any{"annotations": map[string]any{"a": "b"}, "labels": map[string]any{"c": "d"}, "uid": "1"},
				"data":     map[string]any{"bundle.crt": "PEM"},
			}
		case "Stranger /odd":
			found, object = s.added, map[string]any{}
		case "EndpointSlice spire-system/spire-bundle-endpoint-x":
			found = true
			object = map[string]any{"endpoints": []any{map[string]any{"addresses": s.endpoints}}}
		default:
			return fmt.Errorf("nobody asks for %v", key)
		}
		if !found {
			return nil
		}
		data, err := json.Marshal(object)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, into)
	})
	return found && err == nil, err
}

func pod(containers ...map[string]any) map[string]any {
	return map[string]any{"status": map[string]any{"phase": "Running", "podIP": "10.64.0.9", "containerStatuses": containers}}
}

// status is what Kubernetes says of a container; which tells it from another of the same
// name.
func (p process) status(name string, which ...string) map[string]any {
	state := map[string]any{"terminated": map[string]any{}}
	if p.running {
		state = map[string]any{"running": map[string]any{}}
	}
	return map[string]any{
		"name": name, "containerID": fmt.Sprintf("containerd://%s-%d", strings.Join(append(which, name), "-"), p.run), "restartCount": p.run - 1,
		"ready": p.running && !p.stopped, "state": state,
	}
}

func (s *site) Named(_ context.Context, kind access.ObjectKey, labels map[string]string) (names []string, err error) {
	err = s.w.do(func() error {
		switch asked := fmt.Sprint(kind.Kind, " ", kind.Namespace, " ", labels); asked {
		case "Pod spire-system map[app.kubernetes.io/name:spire-agent]":
			if s.agent.run > 0 {
				names = []string{"spire-agent-x"}
			}
		case "EndpointSlice spire-system map[kubernetes.io/service-name:spire-bundle-endpoint]":
			names = []string{"spire-bundle-endpoint-x"}
		default:
			return errors.New("nobody asks for " + asked)
		}
		return nil
	})
	return names, err
}

func (s *site) Delete(_ context.Context, key access.ObjectKey) error {
	return s.w.do(func() error {
		switch {
		case key.Kind == "PersistentVolumeClaim" && s.server.run == 0:
			s.claim = 0
		case key.Kind == "ConfigMap" && key.Name == "spire-bundle":
			s.bundle = false
		case key.Kind == "Stranger":
			s.added = false
		default:
			return fmt.Errorf("delete %v", key)
		}
		return nil
	})
}

func (s *site) NodeReady(context.Context) error {
	return s.w.do(func() error {
		if !s.on {
			return errors.New("api server: connection refused")
		}
		return nil
	})
}

// List is asked for by no fault.
func (s *site) List(_ context.Context, kind access.ObjectKey, _ map[string]string, _ any) error {
	return fmt.Errorf("nobody lists %v", kind)
}

// pods are those of a cluster; faults only look whether they run.
type pods struct {
	access.Pods
	site *site
}

func (p pods) Started(_ context.Context, set access.ObjectKey, container string) error {
	return p.site.w.do(func() error {
		switch asked := set.Namespace + "/" + set.Name + " " + container; {
		case set.Kind != "StatefulSet" || asked != "spire-system/spire-server spire-server":
			return errors.New("nobody asks whether this has started: " + asked)
		case !p.site.server.running:
			return errors.New("0 of 1 started")
		}
		return nil
	})
}

func (p pods) Ready(_ context.Context, key access.ObjectKey) error {
	return p.site.w.do(func() error {
		switch asked := key.Namespace + "/" + key.Name; {
		case key.Kind == "StatefulSet" && asked == "spire-system/spire-server":
			if !p.site.server.running || !p.site.second.running {
				return errors.New("1 of 2 ready")
			}
			return nil
		case key.Kind != "DaemonSet" || asked != "spire-system/spire-agent":
			return errors.New("nobody asks whether this is ready: " + asked)
		case !p.site.agent.running:
			return errors.New("0 of 1 ready")
		}
		return nil
	})
}

func (s *site) Address(context.Context) (netip.Addr, error) {
	err := s.w.do(func() error {
		if !s.on {
			return errors.New("it does not run")
		}
		return nil
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return s.address, nil
}

func (s *site) Stop(_ context.Context, grace time.Duration) error {
	return s.w.do(func() error {
		if grace != 30*time.Second {
			return fmt.Errorf("grace %s", grace)
		}
		s.on, s.rules = false, nil
		for _, p := range []*process{&s.server, &s.manager, &s.agent} {
			p.died = p.running
		}
		return nil
	})
}

func (s *site) Freeze(context.Context) error {
	return s.w.do(func() error {
		if !s.on {
			return errors.New("it does not run")
		}
		s.on = false
		return nil
	})
}

func (s *site) Start(context.Context) error {
	return s.w.do(func() error {
		s.on = true
		return nil
	})
}

func (s *site) Running(context.Context) (on bool, err error) {
	err = s.w.do(func() error {
		on = s.on
		return nil
	})
	return on, err
}

// Exec is the node's programs.
func (s *site) Exec(_ context.Context, argv ...string) (out []byte, err error) {
	err = s.w.do(func() (err error) {
		if !s.on {
			return errors.New("it does not run")
		}
		switch argv[0] {
		case "ctr":
			return s.ctr(argv)
		case "iptables":
			out, err = s.iptables(argv)
		case "curl":
			out, err = s.curl(argv)
		default:
			return fmt.Errorf("no program %s", argv[0])
		}
		return err
	})
	return out, err
}

func (s *site) ctr(argv []string) error {
	if call := strings.Join(argv[:len(argv)-2], " "); call != "ctr --namespace k8s.io tasks kill --signal" {
		return errors.New("nobody asks for " + call)
	}
	signal, id := argv[len(argv)-2], argv[len(argv)-1]
	for name, p := range map[string]*process{"spire-server": &s.server, "second-spire-server": &s.second, "spire-controller-manager": &s.manager, "spire-agent": &s.agent} {
		if !p.running || id != fmt.Sprintf("%s-%d", name, p.run) {
			continue
		}
		switch signal {
		case "SIGKILL":
			p.running = false
		case "SIGSTOP":
			p.stopped = true
		case "SIGCONT":
			p.stopped = false
		}
		return nil
	}
	return errors.New("no running task " + id)
}

func (s *site) iptables(argv []string) ([]byte, error) {
	if call := strings.Join(argv[:4], " ") + argv[5]; call != "iptables --wait --table manglePREROUTING" {
		return nil, errors.New("nobody asks for " + call)
	}
	rule := listed(argv[6:])
	at := slices.Index(s.rules, rule)
	switch action := argv[4]; {
	case action == "--list-rules":
		return []byte("-P PREROUTING ACCEPT\n" + strings.Join(s.rules, "")), nil
	case action == "--insert":
		s.rules = slices.Insert(s.rules, 0, rule)
	case action == "--delete" && at >= 0:
		s.rules = slices.Delete(s.rules, at, at+1)
	default:
		return nil, fmt.Errorf("%s %q: no chain/target/match by that name", action, rule)
	}
	return nil, nil
}

// listed writes a rule the way in which iptables lists it.
func listed(rule []string) string {
	words := slices.Clone(rule)
	for i, word := range words {
		switch word {
		case "--source":
			words[i], words[i+1] = "-s", strings.TrimSuffix(words[i+1], "/32")+"/32"
		case "--protocol":
			words[i] = "-p"
		case "--match":
			words[i] = "-m"
		case "--jump":
			words[i] = "-j"
		case "--comment":
			words[i+1] = `"` + words[i+1] + `"`
		}
	}
	return "-A PREROUTING " + strings.Join(words, " ") + "\n"
}

// curl begins a connection to another site's API, or to the webhook of the site's own.
func (s *site) curl(argv []string) ([]byte, error) {
	if argv[len(argv)-1] == "https://10.64.0.9:9443" {
		if slices.ContainsFunc(s.rules, func(rule string) bool { return strings.Contains(rule, "-s 10.64.0.9/32 -p tcp -m tcp --sport 9443") }) {
			return []byte("28"), errors.New("curl: exit code 28: connection timed out")
		}
		return []byte("0"), nil
	}
	to := s.w.market
	if s == to {
		to = s.w.broker
	}
	if url := argv[len(argv)-1]; url != "https://"+to.address.String()+":6443/livez" {
		return nil, errors.New("nobody asks for " + url)
	}
	if !to.on {
		return []byte("7"), errors.New("curl: exit code 7: connection refused")
	}
	// A packet of a connection that the other has begun passes what is for those
	// that this one has begun.
	dropped := func(at, from *site, original bool) bool {
		return slices.ContainsFunc(at.rules, func(rule string) bool {
			return strings.Contains(rule, "-s "+from.address.String()+"/32") && (original || !strings.Contains(rule, "--ctdir ORIGINAL"))
		})
	}
	if dropped(to, s, true) || dropped(s, to, false) {
		return []byte("28"), errors.New("curl: exit code 28: connection timed out")
	}
	return []byte("0"), nil
}

func (w *world) HeldBundle(_ context.Context, td spiffeid.TrustDomain) (held *spiffebundle.Bundle, err error) {
	err = w.do(func() error {
		held = w.bundles[td]
		return nil
	})
	return held, err
}

func (w *world) SetBundle(_ context.Context, bundle *spiffebundle.Bundle) error {
	return w.do(func() error {
		w.bundles[bundle.TrustDomain()] = bundle
		return nil
	})
}

func (w *world) DeleteBundle(_ context.Context, td spiffeid.TrustDomain, mode spire.DeleteMode) error {
	return w.do(func() error {
		if mode != spire.DeleteDissociate {
			return fmt.Errorf("mode %s", mode)
		}
		delete(w.bundles, td)
		return nil
	})
}

// Agents are that of market, and one of another cluster, which is left alone.
func (w *world) Agents(context.Context) (all []spire.Agent, err error) {
	err = w.do(func() error {
		all = []spire.Agent{
			{ID: spiffeid.RequireFromPath(marketDomain, "/spire/agent/1"), Banned: w.market.banned, Selectors: []string{"k8s_psat:cluster:market"}},
			{ID: spiffeid.RequireFromPath(marketDomain, "/spire/agent/2"), Selectors: []string{"k8s_psat:cluster:other"}},
		}
		return nil
	})
	return all, err
}

func (w *world) BanAgent(_ context.Context, id spiffeid.ID) error {
	return w.ban(id, true)
}

func (w *world) DeleteAgent(_ context.Context, id spiffeid.ID) error {
	return w.ban(id, false)
}

func (w *world) ban(id spiffeid.ID, ban bool) error {
	return w.do(func() error {
		if id.Path() != "/spire/agent/1" {
			return fmt.Errorf("agent %s is none of this cluster", id)
		}
		w.market.banned = ban
		return nil
	})
}

func message(err error) string {
	if err == nil {
		return "none"
	}
	return err.Error()
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if message(err) != want {
		t.Errorf("%s: error %q, want %q", what, message(err), want)
	}
}
