package kernel

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// Facts is everything a verdict is made of: one host, one process on it. It
// encodes to JSON and back without loss. A nil pointer is a quantity that was
// not there to be read; it is never the same as zero or as unlimited.
type Facts struct {
	Host    Host    `json:"host"`
	Process Process `json:"process"`
	// Mappings are the charged mappings of the process in address order, the
	// order in which fork charges them. Filled only where Process.Source is
	// FromSmaps: nothing else shows which mappings are charged.
	Mappings []Mapping `json:"mappings,omitempty"`
}

// Host is what the kernel says of the machine.
type Host struct {
	Release     string     `json:"kernel"`         // uname -r
	Version     string     `json:"kernel_version"` // uname -v: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (…)"
	PageSize    size.Bytes `json:"page_size_bytes"`
	CPUsOnline  int        `json:"cpus_online"`  // /sys/devices/system/cpu/online
	CPUsPresent int        `json:"cpus_present"` // /sys/devices/system/cpu/present

	Mode              Mode        `json:"mode"`                           // vm.overcommit_memory
	OvercommitRatio   int64       `json:"overcommit_ratio"`               // vm.overcommit_ratio, percent
	OvercommitKbytes  *size.Bytes `json:"overcommit_kbytes_bytes"`        // vm.overcommit_kbytes; since 3.14, RHEL 6.6
	AdminReserve      *size.Bytes `json:"admin_reserve_bytes"`            // vm.admin_reserve_kbytes; since 3.10, RHEL 6.8
	UserReserve       *size.Bytes `json:"user_reserve_bytes"`             // vm.user_reserve_kbytes; since 3.10
	MemTotal          size.Bytes  `json:"mem_total_bytes"`                // MemTotal: totalram_pages
	MemFree           size.Bytes  `json:"mem_free_bytes"`                 // MemFree
	MemAvailable      *size.Bytes `json:"mem_available_bytes"`            // MemAvailable; since 3.14
	SwapTotal         size.Bytes  `json:"swap_total_bytes"`               // SwapTotal
	SwapFree          size.Bytes  `json:"swap_free_bytes"`                // SwapFree
	CommitLimit       size.Bytes  `json:"commit_limit_bytes"`             // CommitLimit: vm_commit_limit()
	CommittedAS       size.Bytes  `json:"committed_as_bytes"`             // Committed_AS, overcheck's own charge included
	OwnCharge         size.Bytes  `json:"own_charge_bytes"`               // what overcheck itself added to Committed_AS
	Hugetlb           size.Bytes  `json:"hugetlb_bytes"`                  // Hugetlb: huge pages of all sizes
	HugePagesTotal    int64       `json:"hugepages_total"`                // HugePages_Total, of the default size
	HugePagesFree     int64       `json:"hugepages_free"`                 // HugePages_Free less HugePages_Rsvd: those that can be given back
	HugePageSize      size.Bytes  `json:"hugepage_size_bytes"`            // Hugepagesize
	Swappiness        *int64      `json:"swappiness"`                     // vm.swappiness
	PanicOnOOM        *int64      `json:"panic_on_oom"`                   // vm.panic_on_oom
	OOMKillAllocating *int64      `json:"oom_kill_allocating_task"`       // vm.oom_kill_allocating_task
	MaxMapCount       *int64      `json:"max_map_count"`                  // vm.max_map_count
	THP               string      `json:"transparent_hugepage"`           // always, madvise or never; empty: not built in
	Old               *OldInputs  `json:"old_heuristic"`                  // read only where the old mode-0 rule may hold
	Threads           *int64      `json:"threads"`                        // fourth field of loadavg: nr_threads
	ThreadsMax        *int64      `json:"threads_max"`                    // kernel.threads-max
	PidMax            *int64      `json:"pid_max"`                        // kernel.pid_max
	MeminfoRewritten  bool        `json:"meminfo_rewritten,omitempty"`    // lxcfs stands over /proc/meminfo
	LoadavgRewritten  bool        `json:"loadavg_rewritten,omitempty"`    // lxcfs stands over /proc/loadavg
	SELinuxEnforcing  bool        `json:"selinux_enforcing,omitempty"`    // a confined root domain may lack sys_admin
	NoMMU             bool        `json:"no_mmu,omitempty"`               // CONFIG_MMU=n
	NewRule           *bool       `json:"new_rule,omitempty"`             // what a probe found out of the mode-0 rule; nil: not asked
	LimitGuessed      bool        `json:"commit_limit_guessed,omitempty"` // a change made CommitLimit of rewritten numbers
	PresentRAM        size.Bytes  `json:"present_ram_bytes"`              // Σ present of zoneinfo: MemTotal before any ballooning; 0: not read
	OwnThreads        int64       `json:"own_threads"`                    // overcheck's own among Threads

	// PausePerGiB is what a fork of 4 KiB pages took when it was measured here, in
	// ms; 0: it was not.
	PausePerGiB float64 `json:"pause_ms_per_gib"`
	// Container says why overcheck is taken to run in a container; empty: it does not.
	Container string `json:"container,omitempty"`
	// Boot are the vm.overcommit_* and reserves that sysctl.d would set at boot, in
	// their order; nil: not read.
	Boot []BootSetting `json:"boot_settings"`
	// Neighbours are the programs on this host that have an opinion of the mode, by
	// comm; nil: not looked for.
	Neighbours []string `json:"neighbours"`
}

// BootSetting is one assignment of a sysctl.d file.
type BootSetting struct {
	Key   string `json:"key"` // "vm.overcommit_memory"
	Value string `json:"value"`
	File  string `json:"file"`
}

// OldInputs are the counters that the mode-0 rule read before Linux 5.2, in
// pages: /proc/vmstat, and totalreserve_pages summed from /proc/zoneinfo.
type OldInputs struct {
	FreePages             int64  `json:"nr_free_pages"`
	FilePages             int64  `json:"nr_file_pages"`
	Shmem                 int64  `json:"nr_shmem"`
	SlabReclaimable       int64  `json:"nr_slab_reclaimable"`
	SlabUnreclaimable     int64  `json:"nr_slab_unreclaimable"`
	KernelMiscReclaimable *int64 `json:"nr_kernel_misc_reclaimable"` // 4.20+ and RHEL 8
	TotalReserve          int64  `json:"totalreserve_pages"`
}

// Process is what the kernel says of the process that would fork.
type Process struct {
	PID       int    `json:"pid"`
	Comm      string `json:"comm"`
	StartTime uint64 `json:"start_time_ticks"` // field 22 of stat: tells a process from the next with its pid
	UID       int64  `json:"uid"`              // real uid: whose tasks RLIMIT_NPROC counts

	Source Source `json:"mappings_source"`
	// Charge is what one fork adds to Committed_AS: Σ of the mappings that have
	// VM_ACCOUNT and not VM_DONTCOPY. Exact when read from smaps; else the
	// likely value, and the truth lies between ChargeMin and ChargeMax.
	Charge    size.Bytes `json:"charge_bytes"`
	ChargeMin size.Bytes `json:"charge_min_bytes"`
	ChargeMax size.Bytes `json:"charge_max_bytes"`
	// Largest is the largest charged mapping, with its bounds.
	Largest    size.Bytes `json:"largest_mapping_bytes"`
	LargestMin size.Bytes `json:"largest_mapping_min_bytes"`
	LargestMax size.Bytes `json:"largest_mapping_max_bytes"`
	// Charged counts the charged mappings; MappingCount counts all.
	Charged      int `json:"charged_mappings"`
	MappingCount int `json:"mappings"`
	// Noreserve is private writable memory mapped MAP_NORESERVE: not charged, but
	// it would be if the process had started in mode 2. nil: not known (smaps
	// was not read).
	Noreserve *size.Bytes `json:"noreserve_bytes"`
	// MayBeCharged is memory that the process would map in a what-if: charged or
	// MAP_NORESERVE, that is not known. It is in none of the numbers above but
	// LargestMax.
	MayBeCharged size.Bytes `json:"may_be_charged_bytes,omitzero"`
	// Dontfork is charged memory that fork does not copy (MADV_DONTFORK).
	Dontfork *size.Bytes `json:"dontfork_bytes"`

	TotalVM size.Bytes  `json:"total_vm_bytes"` // mm->total_vm: field 1 of statm
	RSS     size.Bytes  `json:"rss_bytes"`      // VmRSS
	RSSAnon *size.Bytes `json:"rss_anon_bytes"` // RssAnon; since 4.5
	Swap    size.Bytes  `json:"swap_bytes"`     // VmSwap
	// Cow is what a fork shares until it is written to: private anonymous memory,
	// swapped out or not, that fork copies; CowHuge of it is in huge pages. nil:
	// smaps was not read.
	Cow        *size.Bytes `json:"cow_bytes"`
	CowHuge    *size.Bytes `json:"cow_huge_bytes"`
	PageTables size.Bytes  `json:"vmpte_bytes"` // VmPTE, and VmPMD where the kernel counts it apart

	// CapSysAdmin is whether the accounting treats the process as privileged:
	// CAP_SYS_ADMIN effective, in the initial user namespace. nil: not known.
	CapSysAdmin *bool `json:"cap_sys_admin"`
	// InitialUserNS is whether it is in the initial user namespace.
	InitialUserNS *bool `json:"initial_user_namespace"`
	// NprocExempt: global uid 0, CAP_SYS_RESOURCE or CAP_SYS_ADMIN. nil: not known.
	NprocExempt *bool  `json:"nproc_exempt"`
	NprocLimit  *Limit `json:"nproc_limit"` // soft RLIMIT_NPROC
	NprocHard   *Limit `json:"nproc_hard_limit"`
	// UIDTasksMin and UIDTasksMax bound how many tasks count against NprocLimit.
	// Counted only where the limit could bind.
	UIDTasksMin *int64 `json:"uid_tasks_min"`
	UIDTasksMax *int64 `json:"uid_tasks_max"`

	Pids         []PidsCgroup   `json:"pids_cgroups"`   // from its own cgroup up; levels without pids.max left out
	PidsUnseen   string         `json:"pids_unseen"`    // why not all of its ancestors were seen; empty: all were
	Memory       []MemoryCgroup `json:"memory_cgroups"` // from its own cgroup up, those with a limit file
	MemoryUnseen string         `json:"memory_unseen"`

	// PidNSInitDead: the pid namespace that its children would join has lost its init.
	PidNSInitDead *bool `json:"pid_namespace_init_dead"`
	Deadline      bool  `json:"sched_deadline,omitempty"` // policy SCHED_DEADLINE

	Program Program `json:"program"`

	Cgroup string `json:"cgroup"` // the process's own, of systemd's hierarchy or the unified one

	OOMScoreAdj *int64 `json:"oom_score_adj"` // /proc/PID/oom_score_adj
	// Children is how many forked children live at a time; 0 is taken as one.
	Children int64 `json:"children,omitempty"`
	// CowExpected is how much is expected to be rewritten while a child lives; nil:
	// not known.
	CowExpected *size.Bytes `json:"cow_expected_bytes"`

	// WithoutFork: judge what the process starts as started by vfork or posix_spawn.
	WithoutFork bool `json:"without_fork,omitempty"`
	// MappedIn is the mode that was in force when the facts were read: the one
	// that its mappings were made in, as far as can be known.
	MappedIn Mode `json:"mapped_in_mode"`
	// Restart: judge the process as started anew in each mode.
	Restart bool `json:"restart,omitempty"`
}

// Program is what is known of the file that a process executes and of its
// libraries: what tells how it starts other programs.
type Program struct {
	Exe string `json:"exe"` // target of /proc/PID/exe, as the process sees it; empty: it may not be read
	// Forked: its parent executes the same file, so it is most likely a fork of it.
	Forked    bool     `json:"forked"`
	PPID      int      `json:"ppid"`
	Libraries []string `json:"libraries"` // other files that are mapped executable; nil: not known
	// JavaLaunch is jdk.lang.Process.launchMechanism, as its command line or
	// environment sets it; nothing else of these is kept. "?": some options are in
	// files that were not read.
	JavaLaunch string   `json:"java_launch_mechanism"`
	Java       string   `json:"java_version"`     // JAVA_VERSION of the release file beside libjvm.so
	Go         string   `json:"go_version"`       // of its build information, as in "go1.26.0"
	GoArch     string   `json:"go_arch"`          // GOARCH
	Imports    *Imports `json:"imports,omitzero"` // nil: not looked at, or it cannot be told
}

// Imports are the functions that start a process, and which of the program's
// files have them among their undefined dynamic symbols. The C library, which
// defines them, is not among these.
type Imports struct {
	Fork       []string `json:"fork"`        // fork, daemon, forkpty, clone
	Vfork      []string `json:"vfork"`       // vfork
	PosixSpawn []string `json:"posix_spawn"` // posix_spawn, posix_spawnp
	System     []string `json:"system"`      // system, popen
	// Unclear: what may start a process without any of these: syscall, dlopen, wordexp.
	Unclear []string `json:"unclear"`
}

// PidsCgroup is one ancestor's pids controller, v1 or v2.
type PidsCgroup struct {
	Path      string `json:"path"`
	LimitFile string `json:"limit_file"` // pids.max
	Current   int64  `json:"current"`    // pids.current
	Max       Limit  `json:"max"`        // pids.max
	Own       int64  `json:"own"`        // overcheck's own threads among Current
}

// MemoryCgroup is one ancestor's memory controller. v1's files are given under
// v2's names.
type MemoryCgroup struct {
	Path            string     `json:"path"`
	LimitFile       string     `json:"limit_file"` // memory.max, v1 memory.limit_in_bytes
	V1              bool       `json:"v1,omitempty"`
	Current         size.Bytes `json:"current_bytes"`          // memory.current, v1 memory.usage_in_bytes
	Max             Limit      `json:"max_bytes"`              // memory.max, v1 memory.limit_in_bytes
	File            size.Bytes `json:"file_bytes"`             // inactive_file + active_file of memory.stat
	SlabReclaimable size.Bytes `json:"slab_reclaimable_bytes"` // of memory.stat; v2
	High            *Limit     `json:"high_bytes"`             // memory.high; v2
	OOMGroup        bool       `json:"oom_group,omitempty"`    // memory.oom.group; v2: all of it is killed together
	SwapMax         *Limit     `json:"swap_max_bytes"`         // memory.swap.max; v1 memory.memsw.limit_in_bytes, RAM included
	SwapCurrent     size.Bytes `json:"swap_current_bytes"`     // memory.swap.current; v1 the usage of memsw, RAM included
	// Rough: File, SlabReclaimable and the swap limit were not read, since Max was
	// unlimited.
	Rough bool `json:"rough,omitempty"`
	// KmemRoom is what memory.kmem.limit_in_bytes leaves (v1, enforced to 5.15);
	// nil: no such limit.
	KmemRoom *size.Bytes `json:"kmem_room_bytes"`
}

// Mapping is one charged mapping.
type Mapping struct {
	Start    Address    `json:"start"`
	End      Address    `json:"end"`
	Resident size.Bytes `json:"resident_bytes"` // Rss
	Flags    string     `json:"flags"`          // VmFlags, as printed
	Path     string     `json:"path"`           // as printed: newlines escaped by the kernel as \012
}

// Size returns the length of the mapping.
func (m Mapping) Size() size.Bytes { return size.Bytes(m.End - m.Start) }

// Address is a virtual address; in JSON it is a string of hexadecimal digits,
// as /proc/PID/maps prints it, since a JSON number does not hold 64 bits.
type Address uint64

// MarshalText writes the hexadecimal digits.
func (a Address) MarshalText() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(a), 16), nil
}

// UnmarshalText reads them.
func (a *Address) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	*a = Address(n)
	return err
}

// Limit is a limit that may be set to "no limit". The zero value is a limit of 0.
type Limit struct {
	Value     int64
	Unlimited bool
}

// String returns the number, or "unlimited".
func (l Limit) String() string {
	if l.Unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(l.Value, 10)
}

// MarshalJSON writes a number, or the word "unlimited".
func (l Limit) MarshalJSON() ([]byte, error) {
	if l.Unlimited {
		return []byte(`"unlimited"`), nil
	}
	return json.Marshal(l.Value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Limit) UnmarshalJSON(b []byte) error {
	if string(b) == `"unlimited"` {
		*l = Limit{Unlimited: true}
		return nil
	}
	l.Unlimited = false
	if err := json.Unmarshal(b, &l.Value); err != nil {
		return fmt.Errorf("limit %s: want a number or \"unlimited\"", b)
	}
	return nil
}

// limitless is what a quantity too large to compute with is cut to: more than
// any machine has, and sums of a few do not overflow.
const limitless = 256 * size.PiB

// KiloBytes converts what the kernel prints in kB; numbers that no machine has
// (a sysctl takes any) are cut.
func KiloBytes(n uint64) size.Bytes {
	return size.Bytes(min(n, uint64(limitless/size.KiB))) * size.KiB
}

// pages converts to whole pages, rounding down as the kernel does.
func (h Host) pages(b size.Bytes) int64 { return int64(b / h.PageSize) }

// bytes converts from pages.
func (h Host) bytes(pages int64) size.Bytes { return size.Bytes(pages) * h.PageSize }

// Committed is Committed_AS as it will be when overcheck has exited.
func (h Host) Committed() size.Bytes { return h.CommittedAS - h.OwnCharge }

// Inapplicable says why none of these rules hold here; empty: they do.
func (h Host) Inapplicable() string {
	switch {
	case strings.Contains(h.Release, "gvisor"),
		// gVisor's fixed uname -v, whatever release it claims.
		strings.Contains(h.Version, "#1 SMP Sun Jan 10 15:06:54 PST 2016"):
		return "gVisor is not Linux: it has no commit accounting, and its vm.overcommit_memory is a constant"
	case strings.HasSuffix(h.Release, "-Microsoft"):
		return "WSL1 is not Linux: Windows does the commit accounting"
	case h.NoMMU:
		return "this kernel has no MMU: fork() returns EINVAL, only vfork() works"
	}
	return ""
}
