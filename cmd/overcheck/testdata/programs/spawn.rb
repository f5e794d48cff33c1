# Starts a process for each line of standard input, in the way that its argument
# names, and answers with an error number: the victim's protocol.
ways = {
  "spawn" => -> { Process.wait(spawn("/bin/true")) },
  "fork" => -> { Process.wait(fork { exit!(true) }) },
}
$stdout.sync = true
puts "ready"
$stdin.each_line do
  errno = 0
  begin
    ways.fetch(ARGV[0]).call
  rescue SystemCallError => e
    errno = e.errno
  end
  puts errno
end
