# One round of Windows Update: search, choose, download, install. Run as SYSTEM; the settings file holds JSON:
# searchCriteria, filters ("include:" or "exclude:" and a script block that sees the update as $_; the first that matches
# decides, and what none matches is skipped), updateLimit, attempts, pause (seconds between attempts).
# Exit codes: 0 nothing left to install; 101 restart and come again; 1 failed. The last line of the output is always
# "Exiting with code N", and lines that begin with "aib-round: " hold JSON for the one who counts the rounds.
param([Parameter(Mandatory = $true)][string] $SettingsPath)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$settings = [IO.File]::ReadAllText($SettingsPath) | ConvertFrom-Json
$done = 0
$again = 101

function Exit-Round([int] $code) {
    [Console]::Out.WriteLine("Exiting with code $code")
    exit $code
}

function Write-Round($facts) {
    [Console]::Out.WriteLine('aib-round: ' + ($facts | ConvertTo-Json -Compress))
}

function Test-RestartPending {
    if ((New-Object -ComObject Microsoft.Update.SystemInfo).RebootRequired) { return $true }
    $servicing = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing'
    if (Test-Path "$servicing\RebootPending") { return $true }
    $packages = "$servicing\PackagesPending"
    return (Test-Path $packages) -and @(Get-ChildItem $packages).Count -gt 0
}

function Wait-Servicing {
    # A restart in the middle of servicing undoes its work: wait until its worker has been gone for 15 seconds.
    $limit = [DateTime]::UtcNow.AddMinutes(30)
    $gone = 0
    while ($gone -lt 3 -and [DateTime]::UtcNow -lt $limit) {
        if (@(Get-Process -Name TiWorker -ErrorAction SilentlyContinue).Count -gt 0) { $gone = 0 } else { $gone++ }
        if ($gone -lt 3) { Start-Sleep -Seconds 5 }
    }
}

function Exit-ForRestart {
    Wait-Servicing
    Exit-Round $again
}

function Get-Code($problem) {
    return '0x{0:X8}' -f $problem.Exception.GetBaseException().HResult
}

function Invoke-Attempts([string] $what, [scriptblock] $action) {
    for ($attempt = 1; ; $attempt++) {
        try { return & $action } catch {
            $said = "$what failed with $(Get-Code $_): $($_.Exception.GetBaseException().Message)"
            [Console]::Out.WriteLine("$said (attempt $attempt of $($settings.attempts))")
            if ($attempt -ge $settings.attempts) {
                Write-Round @{ error = $said }
                Exit-Round 1
            }
            Start-Sleep -Seconds $settings.pause
        }
    }
}

function Test-Wanted($update, $filters) {
    foreach ($filter in $filters) {
        if (@($update | Where-Object -FilterScript $filter.Test).Count -gt 0) { return $filter.Include }
    }
    return $false
}

try {
    $filters = @(foreach ($text in $settings.filters) {
        $verb, $expression = $text -split ':', 2
        if ($verb -notin @('include', 'exclude') -or -not $expression) {
            Write-Round @{ error = "the filter '$text' must begin with include: or exclude:" }
            Exit-Round 1
        }
        @{ Include = $verb -eq 'include'; Test = [scriptblock]::Create($expression) }
    })
    if (Test-RestartPending) {
        [Console]::Out.WriteLine('A restart is pending: restarting before looking for updates')
        Write-Round @{ pending = $true }
        Exit-ForRestart
    }
    $session = New-Object -ComObject Microsoft.Update.Session
    $session.ClientApplicationID = 'aib'
    [Console]::Out.WriteLine("Searching for Windows updates ($($settings.searchCriteria))...")
    $found = Invoke-Attempts 'The search' { $session.CreateUpdateSearcher().Search($settings.searchCriteria) }
    $chosen = New-Object -ComObject Microsoft.Update.UpdateColl
    $titles = @{}
    $more = $false
    for ($i = 0; $i -lt $found.Updates.Count; $i++) {
        $update = $found.Updates.Item($i)
        $title = $update.Title
        if ($titles.ContainsKey($title)) { continue }
        $titles[$title] = $true
        if (-not (Test-Wanted $update $filters)) {
            [Console]::Out.WriteLine("Skipped (filter): $title")
            continue
        }
        if ($chosen.Count -ge $settings.updateLimit) {
            $more = $true
            break
        }
        if ($update.InstallationBehavior.CanRequestUserInput) {
            [Console]::Out.WriteLine("Warning: this update may ask for input; exclude it if it hangs: $title")
        }
        if (-not $update.EulaAccepted) { $update.AcceptEula() }
        [Console]::Out.WriteLine("Found: $title ($([Math]::Round($update.MaxDownloadSize / 1MB, 1)) MB)")
        [void]$chosen.Add($update)
    }
    if ($chosen.Count -eq 0) {
        [Console]::Out.WriteLine('No Windows updates found')
        Exit-Round $done
    }
    if ($more) { [Console]::Out.WriteLine("Taking $($chosen.Count) of them, the limit of one round") }
    for ($i = 0; $i -lt $chosen.Count; $i++) {
        $update = $chosen.Item($i)
        if ($update.IsDownloaded) { continue }
        [Console]::Out.WriteLine("Downloading $($i + 1) of $($chosen.Count): $($update.Title)")
        $one = New-Object -ComObject Microsoft.Update.UpdateColl
        [void]$one.Add($update)
        $code = Invoke-Attempts "The download of $($update.Title)" {
            $downloader = $session.CreateUpdateDownloader()
            $downloader.Updates = $one
            $answer = $downloader.Download()
            if ($answer.ResultCode -notin @(2, 3)) { throw "result code $($answer.ResultCode)" }
            $answer.ResultCode
        }
        if ($code -eq 3) {
            [Console]::Out.WriteLine('The download succeeded with errors: restarting before it is tried again')
            Write-Round @{ installed = 0; failed = @($update.Title) }
            Exit-ForRestart
        }
    }
    [Console]::Out.WriteLine("Installing $($chosen.Count) Windows updates...")
    $answer = Invoke-Attempts 'The installation' {
        $installer = $session.CreateUpdateInstaller()
        $installer.Updates = $chosen
        $installer.Install()
    }
    $installed = 0
    $failures = @()
    for ($i = 0; $i -lt $chosen.Count; $i++) {
        $title = $chosen.Item($i).Title
        $result = $answer.GetUpdateResult($i)
        if ($result.ResultCode -in @(2, 3)) {
            $installed++
            [Console]::Out.WriteLine("Installed: $title")
        } else {
            $failures += $title
            [Console]::Out.WriteLine(('Failed: {0} (result {1}, 0x{2:X8})' -f $title, $result.ResultCode, $result.HResult))
        }
    }
    Write-Round @{ installed = $installed; failed = $failures }
    Exit-ForRestart
} catch {
    $said = "The update script failed with $(Get-Code $_): $($_.Exception.GetBaseException().Message)"
    [Console]::Out.WriteLine($said)
    Write-Round @{ error = $said }
    Exit-Round 1
}
