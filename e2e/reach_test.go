package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

// Docker Desktop, a rootless Docker, a VPN or a firewall: a wall stands for each of
// them.
var _ = Describe("A machine that does not reach the lab's network", Label("up"), func() {
	It("has its lab all the same", func(ctx SpecContext) {
		p := under.pair()
		Expect(under.well(ctx)).To(Succeed())
		endpoint := spire.BundleEndpointURL(under.running(ctx, p.server.Domain().Name).Server())
		own, _, err := ownRelationship(ctx, p)
		Expect(err).NotTo(HaveOccurred())
		// Only what runs in this group is kept away.
		walled := *under
		walled.group = 60741
		w := wall{chain: "fedlab-e2e-reach", group: walled.group}
		Expect(under.get(ctx, endpoint)).To(Succeed(), "others get through")
		under.restored(rollout, func(ctx context.Context) error { return under.upAgain(ctx) })
		DeferCleanup(func(ctx SpecContext) { Expect(w.remove(ctx)).To(Succeed()) }, NodeTimeout(machine))
		Expect(w.build(ctx)).To(Succeed())

		By("up makes a relationship again")
		Expect(remove(ctx, p.broker.Cluster().Name, own.APIVersion, own.Kind, own.Metadata.Name)).To(Succeed())
		up := walled.fedlab(ctx, "up", "-o", "json")
		Expect(up).To(endWell())
		_, changed, err := up.events()
		Expect(err).NotTo(HaveOccurred())
		Expect(changed).To(BeTrue())
		By("status, drift and the page are as ever")
		Expect(walled.well(ctx)).To(Succeed())
		Expect(walled.fedlab(ctx, "drift")).To(endWell())
		Expect(walled.get(ctx, p.broker.URL())).To(Succeed())
		By("a scenario with a program next to the clusters holds")
		records := filepath.Join(evidenceFolder(), "scenarios-reach")
		Expect(os.RemoveAll(records)).To(Succeed())
		Expect(walled.fedlab(ctx, "scenario", "run", "--records", records, "auth/impersonation-across-domains")).To(endWell())

		By("nothing but loopback was asked for")
		passed, rejected, err := w.counted(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(rejected).To(BeZero())
		Expect(passed).To(BeNumerically(">", 0))
		By("and the wall stands")
		Expect(walled.get(ctx, endpoint)).To(MatchError(ContainSubstring("exit status 7")), "curl: failed to connect")
		_, rejected, err = w.counted(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(rejected).To(BeNumerically(">", 0))
	}, SpecTimeout(10*time.Minute))
})

// get gets a page as a process of the command's group does; who answers does not
// matter.
func (c command) get(ctx context.Context, url string) error {
	cmd := exec.CommandContext(ctx, "curl", "--disable", "--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "10", "--output", os.DevNull, "--", url)
	if c.group != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: c.group}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("get %s: %w: %s", url, err, out)
	}
	return nil
}

// wall rejects what a group of processes sends to a private range, by a chain of its
// own, which leaves the group loopback.
type wall struct {
	chain string
	group uint32
}

// inside are the ranges that a lab's network may be in.
var inside = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"}

const loopback = "127.0.0.0/8"

func (w wall) build(ctx context.Context) error {
	if err := w.remove(ctx); err != nil {
		return err
	}
	rules := [][]string{{"--new-chain", w.chain}, {"--append", w.chain, "--destination", loopback, "--jump", "ACCEPT"}}
	for _, ips := range inside {
		rules = append(rules, []string{"--append", w.chain, "--destination", ips, "--jump", "REJECT"})
	}
	for _, rule := range append(rules, w.entry("--insert")) {
		if _, err := iptables(ctx, rule...); err != nil {
			return err
		}
	}
	return nil
}

// entry leads what the group sends to the chain, or no longer.
func (w wall) entry(do string) []string {
	return []string{do, "OUTPUT", "--match", "owner", "--gid-owner", strconv.FormatUint(uint64(w.group), 10), "--jump", w.chain}
}

// remove removes also what a suite has left that was killed.
func (w wall) remove(ctx context.Context) error {
	if _, err := iptables(ctx, "--list-rules", w.chain); err != nil {
		return nil //nolint:nilerr // there is none
	}
	for _, rule := range [][]string{w.entry("--delete"), {"--flush", w.chain}, {"--delete-chain", w.chain}} {
		if _, err := iptables(ctx, rule...); err != nil && rule[0] != "--delete" {
			return err
		}
	}
	return nil
}

// counted returns how many packets passed to loopback, and how many were rejected.
func (w wall) counted(ctx context.Context) (passed, rejected uint64, err error) {
	// As in: -A CHAIN -d 127.0.0.0/8 -c 12 840 -j ACCEPT
	out, err := iptables(ctx, "--list-rules", w.chain, "--verbose")
	if err != nil {
		return 0, 0, err
	}
	rules := 0
	for rule := range strings.Lines(out) {
		words := strings.Fields(rule)
		for i, word := range words {
			if word != "-c" || i+1 == len(words) {
				continue
			}
			packets, err := strconv.ParseUint(words[i+1], 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("read %q: %w", rule, err)
			}
			if rules++; strings.Contains(rule, "-j REJECT") {
				rejected += packets
			} else {
				passed += packets
			}
		}
	}
	if want := 1 + len(inside); rules != want {
		return 0, 0, fmt.Errorf("%d rules have counters, want %d: %s", rules, want, out)
	}
	return passed, rejected, nil
}

// iptables waits for whoever else changes rules, and returns what it printed.
func iptables(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "iptables", append([]string{"--wait"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("iptables %s: %w: %s", args[0], err, out)
	}
	return string(out), err
}
